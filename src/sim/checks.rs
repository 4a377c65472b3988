//! What must hold at the end of every run, whatever the seed.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use serde_json::Value;

use super::World;
use super::record::base;
use super::record::{Death, Fate, Kept};
use super::scenario::Letter;
use crate::outcome::DeadReason;
use crate::queue::DeadLetter;
use crate::retry::HALTED_ALONE_MAX;

/// Everything that is known at the end.
struct End<'a> {
    world: &'a World,
    kept: &'a Kept,
    /// How many mails left under each id, in whichever generation.
    mailed: BTreeMap<String, usize>,
    /// What stands among the dead letters.
    dead: BTreeMap<String, Vec<DeadLetter>>,
    stats: Value,
    broken: Vec<String>,
}

/// Which promises did not hold.
pub(super) fn all(world: &World) -> Vec<String> {
    let now = world.clock.now();
    let model = world.door.model();
    let mut mailed = BTreeMap::new();
    for mail in model.mails(now, Some(0), usize::MAX) {
        let id = mail
            .get("sendId")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if is_mailed(&mail) {
            *mailed.entry(base(id).0.to_owned()).or_default() += 1;
        }
    }
    let stats = serde_json::to_value(model.stats(now)).unwrap_or_default();
    drop(model);
    let mut dead: BTreeMap<String, Vec<DeadLetter>> = BTreeMap::new();
    for letter in world.queue.standing().dead {
        let id = super::queue::id_of(&letter.body, letter.message_id.as_deref());
        dead.entry(id).or_default().push(letter);
    }
    let kept = world.record.lock();
    let mut end = End {
        world,
        kept: &kept,
        mailed,
        dead,
        stats,
        broken: kept.wrong.clone(),
    };
    for (id, fate) in &kept.fates {
        end.is_not_lost(id, fate);
        end.is_not_doubled(id, fate);
        end.died_of_its_own_fault(id, fate);
    }
    end.stays_in_its_windows();
    end.counts_what_happened();
    end.broken
}

/// HubSpot has sent it, or has it and tells nobody.
fn is_mailed(mail: &Value) -> bool {
    let was_taken = mail.get("statusId").is_some_and(Value::is_string);
    let result = mail.get("result").and_then(Value::as_str);
    was_taken && result.is_none_or(crate::sandbox::status::is_mailed)
}

impl End<'_> {
    fn breaks(&mut self, id: &str, problem: &str) {
        self.broken.push(format!("{id} {problem}"));
    }

    fn is_mailed(&self, id: &str) -> bool {
        self.mailed.contains_key(id)
    }

    /// Nothing accepted is lost: it was taken by HubSpot, or it stands among the dead letters.
    fn is_not_lost(&mut self, id: &str, fate: &Fate) {
        if !fate.accepted || fate.discarded || self.dead.contains_key(id) {
            return;
        }
        let taken = fate
            .calls
            .iter()
            .any(|call| call.status == 200 || call.status == 0);
        if fate.completed == 0 || !taken {
            return self.breaks(
                id,
                "is lost: it was neither taken by HubSpot nor is it dead",
            );
        }
        let told = self.world.scenario.results >= 1.0;
        // What HubSpot tells of an id that was used before is no answer to what became of it, when
        // the answer to an earlier call was lost.
        let all_heard = fate.trouble == 0 && !fate.copied && !fate.came_again;
        if !self.is_mailed(id) && told && all_heard {
            self.breaks(id, "is lost: HubSpot did not send it, and it is not dead");
        }
    }

    /// At most one email per id, and no dead letter of what was mailed that does not say so.
    fn is_not_doubled(&mut self, id: &str, fate: &Fate) {
        let mails = self.mailed.get(id).copied().unwrap_or_default();
        if mails > 1 {
            self.breaks(id, &format!("was mailed {mails} times"));
        }
        for call in &fate.calls {
            let before = call.generation - 1;
            let is_told =
                |death: &Death| death.reason == DeadReason::Refused && death.generation == before;
            if before > 0 && fate.sent_back == 0 && !fate.deaths.iter().any(is_told) {
                self.breaks(
                    id,
                    "went out under a new sendId, and HubSpot had not refused the last",
                );
            }
        }
        if mails == 0 || fate.copied {
            return;
        }
        let silent = self
            .dead
            .get(id)
            .into_iter()
            .flatten()
            .any(|letter| !letter.story.may_have_mailed);
        if silent {
            self.breaks(
                id,
                "was mailed, and its dead letter does not say that it may have been",
            );
        }
    }

    /// Only a message's own fault makes a dead letter, and each explains itself.
    fn died_of_its_own_fault(&mut self, id: &str, fate: &Fate) {
        let letter = self.world.scenario.letter(id);
        for death in &fate.deaths {
            if let Some(problem) = self.wrong_death(letter, fate, death) {
                let reason = death.reason;
                self.breaks(id, &format!("is a dead letter, {reason}: {problem}"));
            }
        }
        if fate.deaths.len() > 1 && !fate.copied && fate.replays == 0 {
            self.breaks(id, "died more than once");
        }
    }

    fn wrong_death(
        &self,
        letter: Option<&Letter>,
        fate: &Fate,
        death: &Death,
    ) -> Option<&'static str> {
        let story = &death.story;
        let told = story.death.as_ref()?;
        if told.problem.is_empty() || told.hint.is_empty() {
            return Some("it does not explain itself");
        }
        let retry = &self.world.scenario.retry;
        let is_well_founded = match death.reason {
            DeadReason::Malformed => letter.is_some_and(|letter| letter.flaw.is_some()),
            DeadReason::Expired => {
                let expires_at = letter.and_then(|letter| letter.expires_at);
                expires_at.is_some_and(|at| told.at >= at)
            }
            DeadReason::Rejected => {
                let refused = |call: &&super::record::SendCall| is_own_fault(call.status);
                story.halted_alone >= HALTED_ALONE_MAX
                    || fate.calls.iter().any(|call| refused(&call))
            }
            DeadReason::Refused => told.words.send_result.is_some(),
            DeadReason::Exhausted => {
                let used_up =
                    story.spent >= retry.max_attempts || story.trying_for(told.at) >= retry.max_age;
                used_up && story.spent <= fate.trouble + fate.sent_back
            }
            DeadReason::Operator => false,
        };
        if !is_well_founded {
            return Some("it is not its own fault");
        }
        let needs_attempts = !matches!(death.reason, DeadReason::Malformed | DeadReason::Expired);
        (needs_attempts && story.attempts.is_empty()).then_some("it tells no attempt")
    }

    /// No rolling window holds more calls than allowed, but for those that were let go and then
    /// held back on their way: their window passes meanwhile. A learned limit finds out what is.
    fn stays_in_its_windows(&mut self) {
        let is_learned = self.world.scenario.quota.adaptive.is_some();
        for bucket in ["send", "api"] {
            if bucket == "send" && is_learned {
                continue;
            }
            let late = self.kept.late.get(bucket).copied().unwrap_or_default();
            let window = self.stats.pointer(&format!("/windows/{bucket}"));
            let number = |name| window?.get(name)?.as_u64();
            if let (Some(limit), Some(most)) = (number("limit"), number("most"))
                && most > limit + late
            {
                let problem = format!("{most} calls in a {bucket} window of {limit}");
                self.broken.push(problem);
            }
        }
    }

    /// The metrics of all processes together tell what happened.
    fn counts_what_happened(&mut self) {
        let mut counted = BTreeMap::new();
        for machine in &self.world.machines {
            let processes = machine
                .metrics
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            for metrics in processes.iter() {
                for line in metrics.render().lines() {
                    let Some((series, value)) = line.rsplit_once(' ') else {
                        continue;
                    };
                    let name = series.split('{').next().unwrap_or_default();
                    *counted.entry(name.to_owned()).or_default() += value.parse().unwrap_or(0.0);
                }
            }
        }
        let happened = [
            ("postrider_attempts_total", self.kept.heard),
            ("postrider_dead_letters_total", self.kept.buried),
        ];
        for (name, happened) in happened {
            let counted: f64 = counted.get(name).copied().unwrap_or_default();
            #[expect(clippy::cast_precision_loss, reason = "some thousands")]
            let happened = happened as f64;
            if (counted - happened).abs() > 0.5 {
                self.broken
                    .push(format!("{name} counts {counted}, and it was {happened}"));
            }
        }
    }
}

/// Whether HubSpot refuses a request for its own fault with this status.
fn is_own_fault(status: u16) -> bool {
    (400..500).contains(&status)
        && !matches!(
            status,
            401..=403 | 405 | 407 | 408 | 421 | 423 | 425 | 429 | 477
        )
}
