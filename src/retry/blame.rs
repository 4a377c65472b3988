//! The account's trouble, told over one request: whose fault it is.

use std::time::Duration;

use jiff::Timestamp;

use super::{Context, FinalResult, ResultDecision, again, dead, held, refused};
use crate::clock::{after, until};
use crate::outcome::PauseReason::{App, Daily, Migrating};
use crate::outcome::{DeadReason, Disposition, Failure, FailureClass};
use crate::story::{Attempt, REFUSED, Story};

/// So often HubSpot may blame the account over one request, and take others in between, before it
/// is held to be the request's own fault.
pub const HALTED_ALONE_MAX: u32 = 5;
/// How much later than its account a request goes on over which HubSpot blamed the account: another
/// one is tried first. Doubled each time that HubSpot took others meanwhile.
const STEP_BACK: Duration = Duration::from_secs(2);

/// The account's trouble, told over this request; or the request's own, when HubSpot takes others
/// meanwhile, time and again.
pub(super) fn after_halt(failure: &Failure, mut story: Story, context: &Context) -> Disposition {
    let before = story.attempts.iter().rev().nth(1);
    let before = before.filter(|attempt| attempt.outcome == FailureClass::Halted.label());
    if blamed_alone(failure, before, context.last_accepted) {
        story.halted_alone = story.halted_alone.saturating_add(1);
    }
    if story.halted_alone >= HALTED_ALONE_MAX {
        let problem = format!(
            "HubSpot blamed the account over this request {HALTED_ALONE_MAX} times, and took others in between"
        );
        let told = (problem, failure.hint.clone());
        return dead(
            story,
            DeadReason::Rejected,
            context,
            told,
            failure.words.clone(),
        );
    }
    let step_back = step_back(&story);
    held(story, after(context.held_until, step_back), context)
}

/// The same of a final result. The account's trouble: sent again, and nothing is spent.
pub(super) fn after_halted_result(
    failure: Failure,
    mut story: Story,
    context: &Context,
) -> ResultDecision {
    let refusals = story.attempts.iter().rev();
    let mut refusals = refusals.filter(|attempt| attempt.outcome == REFUSED);
    if blamed_alone(&failure, refusals.nth(1), context.last_sent) {
        story.halted_alone = story.halted_alone.saturating_add(1);
    }
    if story.halted_alone >= HALTED_ALONE_MAX {
        return ResultDecision {
            disposition: refused(story, failure, context),
            result: Some(FinalResult::Refused),
        };
    }
    let at = after(context.held_until, step_back(&story));
    story.excuse(until(context.now, at));
    ResultDecision::open(again(story, at))
}

/// Whether HubSpot blamed the account over a request before, and others went well since then. A quota that is
/// spent, a move and an app that HubSpot does not know are no request's fault, however often it meets them.
fn blamed_alone(blame: &Failure, before: Option<&Attempt>, others: Option<Timestamp>) -> bool {
    !matches!(blame.pause, Some(Daily | Migrating | App))
        && before.is_some_and(|before| others.is_some_and(|others| others > before.at))
}

fn step_back(story: &Story) -> Duration {
    STEP_BACK * 2_u32.pow(story.halted_alone)
}
