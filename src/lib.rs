//! Postrider: a durable, queue-backed dispatcher for HubSpot Single Send email.
//!
//! Producers publish the very JSON body that HubSpot's Single Send takes, to RabbitMQ (or to an
//! embedded SQLite queue). Workers consume it, stay inside HubSpot's limits, call Single Send,
//! retry what can heal, learn the final result, and route what never will be sent to a dead-letter
//! queue, from where an operator replays it.
//!
//! # Six promises
//!
//! 1. Nothing accepted is lost: it stands in exactly one durable place. Confirm, then ack.
//! 2. At most one email per id: the id travels as `sendId` on every attempt. A time-out is
//!    *unknown*, never *failed*.
//! 3. Never over the quota, counting everything that calls.
//! 4. Only a message's own fault reaches the dead-letter queue; the rest pauses its scope.
//! 5. Every dead letter explains itself, and replay is safe.
//! 6. Accepted is not sent.
//!
//! # The rooms
//!
//! | room | what it knows |
//! |---|---|
//! | [`message`] | the request: parse, validate, the id rule; the schema |
//! | [`story`] | what travels beside a body: attempts, follow-up, death |
//! | [`outcome`] | the verdicts: `Outcome` of a call, `Disposition` of a delivery |
//! | [`clock`] | the only reader of wall time |
//! | [`crypto`] | the one TLS stack: certificates, and what TLS says in words |
//! | [`client`] | the HTTP client with which an account is called: trust, proxy, when a call leaves and if it may |
//! | [`retry`] | outcome + story + now → disposition; pure |
//! | [`delivery`] | who gets mail in which environment; pure |
//! | [`quota`] | rolling windows: one limiter per account and bucket |
//! | [`pause`] | why dispatch is held back, since when, until when |
//! | [`dispatch`] | the loop of one account's lanes, and the straight line of one delivery |
//! | [`journal`] | what was done with each request, step by step: kept beside the queue |
//! | [`queue`] | the contract, and `memory`, `sqlite`, `amqp` |
//! | [`provider`] | the contract, and `hubspot` with its classification |
//! | [`oauth`] | an app at HubSpot, the grants of its accounts, sealed on the disk, and their access tokens |
//! | [`metrics`], [`admin`], [`status`], [`logging`] | what operators see; `admin/guard` says who may |
//! | [`config`] | the only reader of files and environment |
//! | [`sandbox`] | the model of HubSpot: a pure state machine, and its HTTP face |
//! | [`sim`] | the simulation: real dispatchers over the memory queue and the model of HubSpot, all from a seed |
//! | [`cli`] | the commands; the only room that knows all others and writes to stdout |
//!
//! ```text
//! main → cli/worker ─┬─> dispatch ──┬─> queue ────┐
//!                    │              ├─> provider ─┼─> journal, message, story, outcome, clock
//!                    │              ├─> retry, quota, pause, delivery
//!                    │              └─> metrics
//!                    ├─> oauth ──> client, config, message, clock (and provider ─> oauth, client)
//!                    ├─> admin ──> metrics, pause
//!                    ├─> config ──> delivery ──> message
//!                    ├─> sandbox ──> message, outcome, clock
//!                    └─> sim ──> dispatch, queue::memory, provider, sandbox
//! ```
//!
//! # Invariants
//!
//! `tests/tidy.rs` and the lints hold the first two, and the arrows above; readers hold the others.
//!
//! 1. Only `queue/amqp*` names lapin, only `queue/sqlite*` rusqlite, only `provider/hubspot*`,
//!    `oauth/app`, `client` and `cli` reqwest, only `crypto`, `oauth/*` and `sandbox/model/oauth` ring, only `metrics`
//!    prometheus, only `retry` backoff, only `quota` governor.
//! 2. Only `config` reads the environment; only `cli` writes to stdout; only `clock` asks for wall
//!    time.
//! 3. `message`, `delivery`, `retry`, `provider::hubspot::classify` and `sandbox::model` do no I/O,
//!    never log, and take `now` and chance as arguments.
//! 4. Only `retry` chooses a disposition for a failed attempt; only `Queue::settle` carries one out.
//! 5. A queue's `settle` publishes and waits for the confirm before it acknowledges.
//! 6. Every buffer, batch, retry count, time-out and body size has a named limit.
//!
//! # The walk of one message
//!
//! | # | where | what |
//! |---|---|---|
//! | 1 | `dispatch` | the lease held, no pause, a permit and room in the quota, *then* `receive` |
//! | 2 | [`message`] | bytes → `SendRequest`; unreadable → dead letter, straight to 8 |
//! | 3 | `dispatch`, [`delivery`] | not due, expired, of another lane, or held in this environment: straight to 8 |
//! | 4 | `quota` | the token in hand is spent |
//! | 5 | `provider/hubspot` | one call, the same `sendId` on every attempt |
//! | 6 | `provider/hubspot/classify` | answer → `Outcome` |
//! | 7 | `retry` | outcome + story → `Disposition` |
//! | 8 | `queue/*` | `settle`: one metric, one log line, one entry of the [`journal`] |
//!
//! A permit and a token are taken *before* a message is received, so that nothing waits for its turn
//! outside the queue. What a lane waits for meanwhile its loop tells itself ([`dispatch::Wait`]). Whose turn it is then, `queue/turn` says for every backend: the most urgent
//! priority's, but for a share that is left to each of the others that waits; and within it that of
//! the one that expires first, of those at hand. What has expired goes first of all: it costs no
//! token.
//!
//! An accepted send goes on as a follow-up in the results lane, with permits and a bucket of its
//! own: look-ups never hold up sends.
//!
//! # Who owns an account
//!
//! At most one worker dispatches an account: it holds the account's lease, and the others stand
//! by. So quota and pauses are local and exact, and no second store is needed. A worker that takes
//! over assumes that its predecessor has just spent a full window, evenly. A frozen owner does not
//! know that it is one no more: every call is fenced by the time until which the lease is known to
//! hold, when it begins and again when its connection stands ([`client::Fence`]). One that has not left
//! by then never does, and its message goes back with nothing spent.
//!
//! An owner may let a short batch go at once, after a rest (`dispatch/burst`). Then the window is
//! not spent evenly, and it says so first, where its successor finds it ([`queue::Spends`]): that one
//! waits until all of the window is free. So is the day's count of calls told (`dispatch/day`): an owner
//! takes up what the one before had counted.
//!
//! On RabbitMQ the accounts are spread over the workers (`queue/amqp/fleet`): each takes no more than
//! its share, and where another one joins, a lease is *recalled*. It still holds until its owner has
//! ended the term, in the very order of a stop, and stands in line again.
//!
//! # How a worker ends
//!
//! At the stop the lanes take nothing more, and what they had not begun goes back to the queue, in
//! order. Then, and not when the last answer is heard, the lease is let go: when every call of ours has
//! gone out, and so counts in the window that the next owner leaves free. What is still connecting a
//! second later does not go out any more. The calls in flight are heard and settled within the grace;
//! what is left is told, and the queue hands it out again. A refresh that HubSpot may have answered is
//! waited for too (`oauth::finish`).
//! Whatever waits for a broker, a disk or a visitor has a time-out, and all of them together fit
//! into `server.stop_timeout`.
//!
//! # How a pause ends
//!
//! A limit, the day and a migration end by the clock. A refused token, a missing scope and an
//! outage end when they are disproved: the keeper probes without mail, later and later; where that
//! cannot tell, it lets one message of each lane through. Only a call that *began after* the pause
//! disproves it, and which answer is enough depends on the pause (`pause::Proof`): an account that
//! HubSpot has stopped still has its mail accepted, so there only a final result will do.
//!
//! An outage is eight different requests that fail in a row. It has to be proven anew in each 32
//! failures, or a few requests that HubSpot never takes would be one for ever; each time that this
//! was a mistake it is believed for twice as long. After a rolling limit a lane goes on with one call
//! at a time, until one is not refused.
//!
//! # Under which token
//!
//! Where an account's token comes from (`provider/hubspot/source`: given, a file, a command, a grant of
//! OAuth) may tell another one at any time. That one is a *candidate*: the keeper has it proven, without
//! mail, before a call goes out under it, and calls under way end under the token with which they began.
//! A term begins with everything held (`unproven`) until the token in force was asked about. What an
//! account pins (`provider::Pinned`) has to be told by HubSpot, or nothing leaves; of an account that
//! pins nothing, a send may have to tell. What keeps a candidate from taking over, or a source from
//! telling one, is shown until it is over (`provider::TokenTroubles`).
//!
//! # Where nobody can tell
//!
//! A call without an answer, and a message that was handed out before, may have been mailed
//! (`may_have_mailed`). Asking again under the same `sendId` settles it. Another id goes out only
//! where HubSpot's last word on this one was that it was not sent, and nobody can have called since
//! (`not_sent`). Where HubSpot said so once, and now only that the id is used (`was_refused`), a
//! person has to look: it is a dead letter, and its replay keeps the id.
//!
//! # How it is shown
//!
//! The same dispatcher runs in three worlds. On the paused clock over the memory queue, a seed stands
//! for hours of trouble ([`sim`]), and stories of a few requests stand in `tests/it/dispatch`. The
//! contract suite holds the memory queue, SQLite and RabbitMQ to the same rules, so that the
//! simulation's queue is no wishful one. And real processes are killed, stopped and cut off from
//! each other in `tests/it/whole`. Whatever wakes several tasks does it in the order in which they
//! came (`Notify`, never `watch`), or no seed would repeat.
//!
//! # Hostile input
//!
//! Whatever anybody may write is read by one of five rooms: the request ([`message`]), what stands
//! beside it (`queue/amqp`), a row (`queue/sqlite`), HubSpot's answer (`provider/hubspot`), and the
//! [`config`]; and a story goes on from there ([`retry`]). Each has a `hostile.rs` that states what
//! must hold of any bytes. proptest asks it in the tests, and libFuzzer with `tests/fuzz/run
//! [INPUTS [TARGET…]]`: a million inputs of each, guided by coverage, on the stable toolchain. What
//! either finds becomes a test. Of the token endpoint's answer `oauth/classify` says the same, by proptest
//! alone.
//!
//! # Where a change belongs
//!
//! | change | room |
//! |---|---|
//! | HubSpot answers in a new way | `provider/hubspot/classify`, or `send_result` for a result |
//! | what follows from a verdict | [`retry`] |
//! | what holds an account back | [`pause`], `dispatch/learn` |
//! | what a request may hold | [`message`] |
//! | who gets mail outside production | [`delivery`], `config/guard` for what may change it |
//! | a new backend | [`queue`], and a harness in `tests/it/contract/backends.rs` |
//! | how an account logs in, and what is kept of it | [`oauth`], `cli/auth` |
//! | what `trace` can tell | [`journal`], noted in `dispatch`; told in `cli/trace` |
//! | what `queue` and `why` can tell | where it is decided: [`dispatch::Wait`], [`quota::Full`]; told in `cli/rate`, `cli/why` |
//! | a new command | a file in `cli` |
//! | a new setting | `config`, `config/postrider.toml`, and its reader in the same commit |

pub mod admin;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod crypto;
pub mod delivery;
pub mod dispatch;
pub mod hint;
pub mod journal;
pub mod logging;
pub mod message;
pub mod metrics;
pub mod oauth;
pub mod outcome;
pub mod pause;
pub mod provider;
pub mod queue;
pub mod quota;
pub mod retry;
pub mod sandbox;
pub mod sim;
pub mod status;
pub mod story;
