//! The queue's contract: one suite, every backend.
//!
//! A rule is an async function over a [`Backend`]; [`suite!`] makes a test of each rule with each
//! backend, such as `contract::sqlite::a_replay_goes_out_again`. What stands where is read from
//! `depths`, which is part of the contract itself.
//!
//! Memory and SQLite run on tokio's paused clock: it waits for `spawn_blocking`, and their due times
//! come from a clock that moves with it. RabbitMQ is another process, and takes its time: `amqp` is
//! 3.10, `amqp4` is 4.0.

mod backends;
mod dead;
mod hand;
mod lanes;
mod steps;
mod turns;
mod waiting;

use std::time::Duration;

use postrider::clock::Clock;
use postrider::queue::{DeadLetters, Queue};

/// A queue that knows the accounts `default` and `second`, and is empty.
pub trait Backend: Sized {
    type Queue: Queue + DeadLetters;
    /// How long a message takes to reach an intake that does not receive yet.
    const ARRIVAL: Duration = Duration::ZERO;

    fn queue(&self) -> &Self::Queue;
    fn clock(&self) -> Clock;
    /// Returns when the connection was lost (or the process died) and is back; `queue` may be
    /// another one then.
    async fn lose_connection(&mut self);
}

macro_rules! suite {
    ($($subject:ident: $($rule:ident)*;)*) => {
        backend!(memory, (start_paused = true), Memory::fresh; $($subject: $($rule)*;)*);
        backend!(sqlite, (start_paused = true), Sqlite::fresh; $($subject: $($rule)*;)*);
        backend!(amqp, (), Amqp::on_3_10; $($subject: $($rule)*;)*);
        backend!(amqp4, (), Amqp::on_4_0; $($subject: $($rule)*;)*);
    };
}

macro_rules! backend {
    ($name:ident, $clock:tt, $backend:ident::$new:ident; $($subject:ident: $($rule:ident)*;)*) => {
        mod $name {
            use super::backends::$backend;
            $($(#[tokio::test $clock]
            async fn $rule() {
                super::$subject::$rule($backend::$new().await).await;
            })*)*
        }
    };
}

suite! {
    lanes:
        a_request_is_received_as_it_came
        order_is_kept_within_a_priority
        high_goes_before_normal_before_low
        accounts_do_not_mix
        complete_leaves_nothing
        a_routed_request_changes_its_lane
        an_unknown_account_is_unroutable
        depths_name_every_queue
        what_is_due_to_be_sent_is_counted
        a_lease_is_given
        what_an_owner_tells_the_next_one_knows;
    waiting:
        a_retry_comes_back_by_its_lane_and_not_early
        a_snooze_comes_back_by_the_lane_it_was_received_in
        what_waits_holds_up_nothing
        a_follow_up_comes_by_the_results_lane
        a_due_time_may_be_far_ahead
        a_due_time_may_have_passed
        a_long_story_and_a_large_body_come_back_whole;
    dead:
        a_dead_letter_keeps_body_id_and_story
        dead_letters_are_visited_oldest_first_until_break
        a_replay_goes_out_again
        a_replay_that_nobody_takes_stays_dead
        a_discarded_letter_is_gone
        a_route_to_nowhere_is_a_death;
    hand:
        a_released_request_is_handed_out_again
        what_was_in_hand_is_handed_out_after_a_lost_connection
        a_dropped_intake_gives_back_what_was_not_received
        a_closed_intake_has_given_back_what_was_not_received_in_order
        an_intake_holds_no_more_than_its_prefetch
        receive_may_be_cancelled;
    turns:
        a_share_is_left_to_each_priority_that_waits
        what_is_not_urgent_enough_waits
        what_expires_first_goes_first
        nobody_is_overtaken_by_more_than_the_prefetch
        what_was_overtaken_is_given_back_in_order
        follow_ups_keep_their_order;
}
