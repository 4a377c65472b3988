//! How long a storm is, and how many faults of each kind strike in it.

use super::fault::Fault;

/// The short form, and the long one.
pub struct Forms {
    short: Form,
    long: Form,
}

pub struct Form {
    /// At the least.
    pub messages: usize,
    /// How many sends a worker may make in a rolling second.
    pub limit: usize,
    pub faults: &'static [(Fault, usize)],
}

impl Forms {
    /// `POSTRIDER_TEST_STORM=long` chooses the long one.
    pub fn chosen(&self) -> &Form {
        let long = std::env::var_os("POSTRIDER_TEST_STORM").is_some_and(|form| form == "long");
        if long { &self.long } else { &self.short }
    }
}

pub const NODE: Forms = Forms {
    short: Form {
        messages: 1_000,
        limit: 200,
        faults: &[
            (Fault::OwnerKilled, 3),
            (Fault::StandbyKilled, 1),
            (Fault::OwnerFrozen, 1),
            (Fault::NodeKilled, 1),
            (Fault::NodeStopped, 1),
            (Fault::NodeFrozen, 1),
            (Fault::WiresCut, 2),
            (Fault::HubSpotTroubled, 1),
        ],
    },
    long: Form {
        messages: 50_000,
        limit: 100,
        faults: &[
            (Fault::OwnerKilled, 70),
            (Fault::StandbyKilled, 10),
            (Fault::OwnerFrozen, 12),
            (Fault::NodeKilled, 25),
            (Fault::NodeStopped, 10),
            (Fault::NodeFrozen, 8),
            (Fault::WiresCut, 15),
            (Fault::HubSpotTroubled, 12),
        ],
    },
};

/// Nodes are killed 20 s apart, so the long form takes as long as its 60 nodes.
pub const CLUSTER: Forms = Forms {
    short: Form {
        messages: 500,
        limit: 200,
        faults: &[(Fault::NodeKilled, 1), (Fault::OwnerKilled, 1)],
    },
    long: Form {
        messages: 50_000,
        limit: 50,
        faults: &[
            (Fault::NodeKilled, 60),
            (Fault::OwnerKilled, 45),
            (Fault::StandbyKilled, 5),
            (Fault::OwnerFrozen, 5),
            (Fault::NodeStopped, 5),
            (Fault::WiresCut, 10),
            (Fault::HubSpotTroubled, 5),
        ],
    },
};

pub const SQLITE: Forms = Forms {
    short: Form {
        messages: 500,
        limit: 200,
        faults: &[(Fault::OwnerKilled, 3), (Fault::HubSpotTroubled, 1)],
    },
    long: Form {
        messages: 50_000,
        limit: 200,
        faults: &[(Fault::OwnerKilled, 110), (Fault::HubSpotTroubled, 15)],
    },
};
