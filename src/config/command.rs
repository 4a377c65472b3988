//! A secret that a command prints: how a system's keyring or a vault is asked.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

/// A keyring may ask a person to unlock it.
const TIME_MAX: Duration = Duration::from_secs(30);
/// What is read of the output, in bytes.
const OUTPUT_BYTES_MAX: u64 = 16 * 1024;

/// The variable by which the shell is given the command: whoever lists the processes sees no argument.
const COMMAND: &str = "POSTRIDER_COMMAND";

/// What a command prints when `sh` runs it, without the space around it. Blocks for up to 30 s; what
/// has not ended by then is killed, with all that it has started. It has no terminal.
///
/// # Errors
/// What went wrong, in words that follow the key's name; neither the command nor what it printed is
/// repeated.
pub fn output_of(command: &str) -> Result<String, String> {
    output_within(command, TIME_MAX)
}

fn output_within(command: &str, time_max: Duration) -> Result<String, String> {
    let child = Command::new("sh")
        .args(["-c", &format!("eval \"${COMMAND}\"")])
        .env(COMMAND, command)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // It may print the secret there as well.
        .stderr(Stdio::null())
        // So that it can be killed with all that it has started.
        .process_group(0)
        .spawn()
        .map_err(|error| format!("cannot be run: {error}"))?;
    let group = Group::of(&child);
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        // Nobody waits any more when the time was up.
        sender.send(ended(child)).ok();
    });
    let Ok(ended) = receiver.recv_timeout(time_max) else {
        kill(group.0);
        return Err(format!("did not end within {time_max:?}"));
    };
    let (text, status) = ended.map_err(|error| format!("was lost: {error}"))?;
    match String::from_utf8(text) {
        Err(_) => Err("printed something that is no text".into()),
        Ok(_) if !status.success() => Err(format!("failed: {status}")),
        Ok(text) if text.trim().is_empty() => Err("printed nothing".into()),
        Ok(text) => Ok(text.trim().to_owned()),
    }
}

/// Kills what runs yet: the process ends, and nobody would wait for it any more. It does not hear the
/// terminal's Ctrl-C itself.
pub fn end_commands() {
    for group in running().iter() {
        kill(*group);
    }
}

/// A command that runs, until it is dropped.
struct Group(Pid);

static RUNNING: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

fn running() -> MutexGuard<'static, Vec<Pid>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Group {
    fn of(child: &Child) -> Self {
        let pid = Pid::from_child(child);
        running().push(pid);
        Self(pid)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        running().retain(|pid| *pid != self.0);
    }
}

/// It may have ended just now; then there is nothing to kill.
fn kill(group: Pid) {
    kill_process_group(group, Signal::KILL).ok();
}

/// Waits for the end of what it prints, and then for its own.
fn ended(mut child: Child) -> io::Result<(Vec<u8>, ExitStatus)> {
    let mut text = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(OUTPUT_BYTES_MAX).read_to_end(&mut text)?;
    }
    Ok((text, child.wait()?))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::time::Instant;

    use super::*;

    #[test]
    fn what_a_command_prints_is_the_secret_and_nothing_else_is_told() {
        assert_eq!(output_of("printf ' a-secret \n'").unwrap(), "a-secret");
        for (command, why) in [
            ("true", "printed nothing"),
            ("echo a-secret; exit 3", "failed: exit status: 3"),
        ] {
            assert_eq!(output_of(command).unwrap_err(), why);
        }
    }

    /// In the first, what it has started holds its output open; in the second all have closed it.
    #[test]
    fn what_does_not_end_is_killed_with_all_that_it_has_started() {
        let folder = tempfile::tempdir().unwrap();
        for (name, command) in [
            ("open", "sleep 600 & echo $! >FILE; wait"),
            ("closed", "exec >&-; sleep 600 & echo $! >FILE; wait"),
        ] {
            let file = folder.path().join(name);
            let command = command.replace("FILE", file.to_str().unwrap());
            let why = output_within(&command, Duration::from_secs(2)).unwrap_err();
            assert_eq!(why, "did not end within 2s");
            until_dead(&file);
        }
    }

    fn until_dead(file: &Path) {
        let pid = std::fs::read_to_string(file).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while is_alive(pid.trim()) {
            assert!(Instant::now() < deadline, "{} lives", file.display());
            std::thread::yield_now();
        }
    }

    /// A process that was killed and that nobody has asked after yet is none.
    fn is_alive(pid: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        let state = stat.map(|stat| {
            stat.rsplit(')')
                .next()
                .unwrap_or_default()
                .trim()
                .to_owned()
        });
        state.is_ok_and(|state| !state.starts_with('Z') && !state.starts_with('X'))
    }

    #[test]
    fn the_process_list_shows_no_command() {
        let shown = output_of("tr '\\0' ' ' </proc/$$/cmdline; : a-secret").unwrap();
        assert!(
            shown.starts_with("sh -c") && !shown.contains("a-secret"),
            "{shown}"
        );
    }
}
