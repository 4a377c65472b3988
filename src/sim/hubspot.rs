//! The way to HubSpot and back: the model behind a network that takes its time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::life::Life;
use super::record::{Record, SendCall, Who, base};
use super::scenario::{Letter, Scenario};
use crate::clock::Clock;
use crate::message::AccountName;
use crate::provider::hubspot::{Answer, Call, Heard, Silence, Transport};
use crate::quota::Bucket;
use crate::sandbox::{self, Ending, Model};

/// A call that is never answered is forgotten by the network after this time.
const FORGOTTEN_AFTER: Duration = Duration::from_mins(5);

/// Where all calls arrive.
#[derive(Debug)]
pub(super) struct Door {
    model: Mutex<Model>,
    rng: Mutex<fastrand::Rng>,
    clock: Clock,
    record: Arc<Record>,
    scenario: Arc<Scenario>,
}

/// The way of one worker to HubSpot.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) door: Arc<Door>,
    pub(super) life: Arc<Life>,
    pub(super) worker: usize,
    pub(super) account: AccountName,
    /// Of the worker's machine.
    pub(super) clock: Clock,
    pub(super) timeout: Duration,
}

/// What a call is about.
struct About {
    /// Of a send, its `sendId`.
    send_id: Option<String>,
    what: &'static str,
    bucket: Bucket,
    account: AccountName,
}

impl Door {
    pub(super) fn new(
        model: Model,
        rng: fastrand::Rng,
        clock: Clock,
        record: Arc<Record>,
        scenario: Arc<Scenario>,
    ) -> Self {
        Self {
            model: Mutex::new(model),
            rng: Mutex::new(rng),
            clock,
            record,
            scenario,
        }
    }

    pub(super) fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn delay(&self) -> Duration {
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        self.scenario.arrival_max.mul_f64(rng.f64())
    }

    fn is_out_of_reach(&self) -> bool {
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        self.scenario.is_stormy() && rng.f64() < self.scenario.unreachable
    }

    /// Carries one call there; what comes of it goes to `answer`, if anybody still waits for it.
    async fn carry(self: Arc<Self>, call: Call, about: About, answer: oneshot::Sender<Heard>) {
        sleep(self.delay()).await;
        let reply = self.model().call(
            self.clock.now(),
            &sandbox::Call {
                method: call.method(),
                path: call.path(),
                query: None,
                authorization: Some(&call.authorization()),
                body: call.body(),
            },
        );
        let (status, told) = match &reply.ending {
            Ending::Answer(answer) => (answer.status, answer.status.to_string()),
            Ending::Cut => (0, "the connection is reset".to_owned()),
            Ending::Never => (0, "no answer".to_owned()),
        };
        let send_id = about.send_id.as_deref().unwrap_or_default();
        let told = format!("{told} ({})", about.account);
        self.record.note(Who::HubSpot, about.what, send_id, told);
        if let Some(send_id) = &about.send_id {
            let (id, generation) = base(send_id);
            self.record.fate(id, |fate| {
                fate.calls.push(SendCall { generation, status });
            });
        }
        sleep(reply.after + self.delay()).await;
        let heard = match reply.ending {
            Ending::Answer(answer) => Ok(Answer::new(answer.status, &answer.headers, &answer.body)),
            Ending::Cut => Err(Silence::NotAnswered("connection reset".into())),
            Ending::Never => {
                sleep(FORGOTTEN_AFTER).await;
                return;
            }
        };
        // Whoever asked may have died or given up.
        drop(answer.send(heard));
    }
}

impl Transport for Way {
    async fn carry(&self, call: Call) -> Heard {
        let about = About::of(&call, &self.account);
        if let Some(send_id) = &about.send_id {
            self.check_time(send_id);
        }
        let ready = Instant::now();
        self.life.reaches_hubspot().await;
        if ready.elapsed() > self.door.scenario.arrival_max {
            let bucket = about.bucket.label();
            *self.door.record.lock().late.entry(bucket).or_default() += 1;
        }
        self.life.step().await;
        let send_id = about.send_id.clone();
        let heard = if self.door.is_out_of_reach() {
            Err(Silence::NotReached("connection refused".into()))
        } else {
            self.exchange(call, about).await
        };
        self.life.reaches_hubspot().await;
        self.life.step().await;
        if let Some(send_id) = send_id {
            let record = &self.door.record;
            record.lock().heard += 1;
            let (told, is_trouble) = match &heard {
                Ok(answer) => (answer.status.to_string(), is_trouble(answer.status)),
                Err(_) => ("nothing".to_owned(), true),
            };
            let (id, _) = base(&send_id);
            record.fate(id, |fate| fate.trouble += u32::from(is_trouble));
            record.note(Who::Worker(self.worker), "hears", &send_id, told);
        }
        heard
    }
}

impl Way {
    /// Sends a call off and waits for its answer. It arrives even if the caller dies meanwhile.
    async fn exchange(&self, call: Call, about: About) -> Heard {
        let (answer, heard) = oneshot::channel();
        tokio::spawn(Arc::clone(&self.door).carry(call, about, answer));
        match timeout(self.timeout, heard).await {
            Ok(Ok(heard)) => heard,
            Ok(Err(_)) | Err(_) => Err(Silence::NotAnswered("time-out".into())),
        }
    }

    /// No attempt before its time, and none after.
    fn check_time(&self, send_id: &str) {
        let (id, _) = base(send_id);
        if Letter::is_fresh(id) {
            return;
        }
        let Some(Letter {
            send_at,
            expires_at,
            ..
        }) = self.door.scenario.letter(id)
        else {
            let problem = format!("a call under {send_id}, which nobody published");
            return self.door.record.wrong(problem);
        };
        let now = self.clock.now();
        if send_at.is_some_and(|at| now < at) {
            self.door
                .record
                .wrong(format!("{send_id} was sent before its sendAt"));
        }
        if expires_at.is_some_and(|at| now >= at) {
            self.door
                .record
                .wrong(format!("{send_id} was sent after its expiresAt"));
        }
    }
}

/// Whether an answer may spend an attempt.
fn is_trouble(status: u16) -> bool {
    matches!(status, 408 | 423 | 425 | 500..=599)
}

impl About {
    fn of(call: &Call, account: &AccountName) -> Self {
        let account = account.clone();
        if call.path().ends_with("send") {
            let body: serde_json::Value = serde_json::from_slice(call.body()).unwrap_or_default();
            let id = body.pointer("/message/sendId").and_then(|id| id.as_str());
            return Self {
                send_id: Some(id.unwrap_or_default().to_owned()),
                what: "send",
                bucket: Bucket::Send,
                account,
            };
        }
        let what = if call.path().contains("send-statuses") {
            "look-up"
        } else {
            "probe"
        };
        Self {
            send_id: None,
            what,
            bucket: Bucket::Api,
            account,
        }
    }
}
