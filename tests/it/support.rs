//! What several subjects need.

pub mod balancer;
pub mod broker;
pub mod cluster;
pub mod forward;
pub mod producer;
pub mod proxy;
pub mod raw;
pub mod secret;
pub mod tls;

/// A test of each of these on each RabbitMQ: `rabbitmq_3_10::NAME` and `rabbitmq_4_0::NAME`.
macro_rules! on_each_rabbitmq {
    ($test:meta: $($name:ident)*) => {
        mod rabbitmq_3_10 {
            $(#[$test]
            async fn $name() {
                super::$name($crate::support::broker::Version::V3_10).await;
            })*
        }
        mod rabbitmq_4_0 {
            $(#[$test]
            async fn $name() {
                super::$name($crate::support::broker::Version::V4_0).await;
            })*
        }
    };
}
pub(crate) use on_each_rabbitmq;
