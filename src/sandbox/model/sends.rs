//! Sends and their results.

use super::{Accepted, LATE, Letter, Model, Turn, millis_of};
use crate::sandbox::answer::Answer;
use crate::sandbox::faults::MailFault;
use crate::sandbox::memory::Key;
use crate::sandbox::status::{NEVER, Ticket, is_mailed};

impl Model {
    pub(super) fn send(&mut self, turn: &mut Turn<'_>) -> Answer {
        let letter = match &turn.letter {
            Some(Ok(letter)) => letter,
            Some(Err(problem)) => return turn.answers.invalid(problem),
            None => return turn.answers.plain_invalid(),
        };
        let key = letter
            .send_id
            .as_deref()
            .map(|id| Key::new(turn.portal, id));
        let used = key.and_then(|key| self.send_ids.get(key));
        // What HubSpot answers to a used `sendId` is not documented, nor for how long it knows
        // one. Inferred: since the call is asynchronous, 200 with a new `statusId`, whose result
        // is IDEMPOTENT_IGNORE after a mail, and IDEMPOTENT_FAIL after none.
        let (result, delay) = match used {
            Some(true) => ("IDEMPOTENT_IGNORE".to_owned(), self.delay()),
            Some(false) => ("IDEMPOTENT_FAIL".to_owned(), self.delay()),
            None => self.fate(turn.portal, letter),
        };
        self.serial = self.serial.wrapping_add(1);
        let ticket = Ticket {
            serial: self.serial,
            result: self.results.place(&result),
            delay_ms: delay,
            requested_ms: turn.now.as_millisecond(),
            portal: turn.portal,
        };
        turn.accepted = Some(Accepted {
            ticket,
            duplicate: used.is_some(),
        });
        self.books.tally.accepted += 1;
        let mailed = used.is_none() && is_mailed(&result);
        match used {
            Some(_) => self.books.tally.duplicates += 1,
            None if mailed => self.books.tally.mails += 1,
            None => self.books.tally.refused += 1,
        }
        if let (Some(key), None) = (key, used) {
            self.books.tally.send_ids_mailed += u64::from(mailed);
            self.books.tally.forgotten.send_ids += self.send_ids.insert(key, mailed) as u64;
        }
        turn.answers.json(200, &ticket.pending())
    }

    /// The final result of a first send, and its delay in milliseconds.
    fn fate(&mut self, portal: u32, letter: &Letter) -> (String, u32) {
        let age = self.faults_age();
        let fault = letter
            .flaw()
            .map(|result| MailFault::Result(result.to_owned()))
            .or_else(|| self.asked_for(portal, letter))
            .or_else(|| self.faults.mail(age, &mut self.rng));
        let delay = self.delay();
        match fault {
            None => ("SENT".to_owned(), delay),
            Some(MailFault::Result(result)) => (result, delay),
            Some(MailFault::Late) => ("SENT".to_owned(), delay.saturating_add(millis_of(LATE))),
            Some(MailFault::Lost) => ("SENT".to_owned(), NEVER),
        }
    }

    /// The mail fault that the address brings. Counted by address and not by `sendId`: a mail that
    /// was refused goes out again under another one.
    fn asked_for(&mut self, portal: u32, letter: &Letter) -> Option<MailFault> {
        let fault = letter.magic.mail.clone()?;
        let times = letter.magic.mail_times;
        let key = Key::new(portal, &letter.to);
        let strikes = times.is_none_or(|times| self.tries.count(key) <= times);
        strikes.then_some(fault)
    }

    pub(super) fn look_up(&self, turn: &Turn<'_>, id: &str) -> Answer {
        match Ticket::decode(id).filter(|ticket| ticket.portal == turn.portal) {
            Some(ticket) => turn.answers.json(
                200,
                &ticket.view(turn.now, self.results.name(ticket.result)),
            ),
            None => turn.answers.not_found(),
        }
    }

    fn delay(&mut self) -> u32 {
        millis_of(self.options.results_after.draw(&mut self.rng))
    }
}
