//! Who dispatches an account: one connection at a time, and the next one when that is lost.

use std::sync::Arc;

use super::super::{Before, Grant, Lease, Note, Teller, Validity, Word};

/// The line before one account.
#[derive(Debug, Default)]
pub(super) struct Line {
    owner: Option<Owner>,
    /// Terms of ownership so far.
    terms: u64,
    /// What the last owners told.
    note: Note,
}

#[derive(Debug)]
struct Owner {
    connection: u64,
    grant: Arc<Grant>,
}

impl Line {
    /// The lease, unless another connection has it; with its other end, and which term it is.
    pub(super) fn take(
        &mut self,
        connection: u64,
        teller: Teller,
    ) -> Option<(Lease, Arc<Grant>, u64)> {
        if self.owner.is_some() {
            return None;
        }
        let before = if self.terms == 0 {
            Before::Nobody
        } else {
            Before::Somebody(self.note.spends)
        };
        let (grant, lease) = Grant::new(Validity::Held, before, self.note.day, teller);
        let grant = Arc::new(grant);
        self.terms += 1;
        self.owner = Some(Owner {
            connection,
            grant: Arc::clone(&grant),
        });
        Some((lease, grant, self.terms))
    }

    /// What its owner tells; whether it is the owner still.
    pub(super) fn told(&mut self, connection: u64, word: Word) -> bool {
        let is_owner = self.is_of(connection);
        if is_owner {
            self.note.add(word);
        }
        is_owner
    }

    /// Nobody has the lease of this term any more.
    pub(super) fn let_go(&mut self, term: u64) {
        if term == self.terms {
            self.owner = None;
        }
    }

    /// A connection is lost, and with it the lease that it held.
    pub(super) fn lose(&mut self, connection: u64) {
        if self.is_of(connection)
            && let Some(owner) = self.owner.take()
        {
            owner.grant.set(Validity::Lost);
        }
    }

    /// Until when the lease of a connection holds.
    pub(super) fn set(&self, connection: u64, validity: Validity) {
        if self.is_of(connection)
            && let Some(owner) = &self.owner
        {
            owner.grant.set(validity);
        }
    }

    /// Another worker should have it.
    pub(super) fn recall(&self) {
        if let Some(owner) = &self.owner {
            owner.grant.recall();
        }
    }

    /// The connection that has the lease.
    pub(super) fn owner(&self) -> Option<u64> {
        self.owner.as_ref().map(|owner| owner.connection)
    }

    fn is_of(&self, connection: u64) -> bool {
        self.owner() == Some(connection)
    }
}
