//! Where grants are kept: in one folder a sealed file for each account, `NAME.grant`.
//!
//! A file is never changed in place: the new one is written beside it, synced, and takes its name. Who
//! writes holds the lock of `NAME.lock`, among all processes of the machine. All but the wait for
//! the lock blocks.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretBox};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;
use tokio::time::Instant;

use super::app::lost;
use super::seal::{self, Broken};
use super::{Grant, OAuthError};
use crate::config::OAUTH_KEY_BYTES;
use crate::message::AccountName;

/// The largest file that is read: tokens of 512 characters and some hundred scopes are far below.
const FILE_BYTES_MAX: u64 = 256 * 1024;
/// Room that a draft takes on the disk before HubSpot is asked.
const DRAFT_BYTES: usize = 16 * 1024;
/// How long another process is waited for: somewhat longer than its call to HubSpot may take.
const LOCK_TIME_MAX: Duration = Duration::from_secs(30);
const LOCK_EVERY: Duration = Duration::from_millis(50);
/// Who may read and write: the owner alone.
const MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;
const OTHERS: u32 = 0o077;

/// One account's place in the folder.
#[derive(Clone, Debug)]
pub struct Store {
    account: AccountName,
    folder: PathBuf,
}

/// Held by the one process that may write. Dropping it lets go.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "it is held, and closed at last")] File);

/// A file that stands ready: the disk has room for it, and takes it.
#[derive(Debug)]
pub(super) struct Draft(NamedTempFile);

/// What is sealed.
#[derive(Deserialize, Serialize)]
struct Kept<T> {
    access_token: T,
    refresh_token: T,
    issued_at: Timestamp,
    expires_at: Timestamp,
    hub_id: Option<u64>,
    scopes: Option<Vec<String>>,
    client_id: String,
}

/// What seals.
pub type Key = SecretBox<[u8; OAUTH_KEY_BYTES]>;

impl Store {
    #[must_use]
    pub fn new(account: &AccountName, folder: &Path) -> Self {
        Self {
            account: account.clone(),
            folder: folder.to_owned(),
        }
    }

    /// The file of the grant.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.folder.join(format!("{}.grant", self.account))
    }

    /// # Errors
    /// [`OAuthError::NotLoggedIn`], or [`OAuthError::Store`] when the file is open to others, damaged,
    /// or sealed with another key.
    pub fn read(&self, key: &Key) -> Result<Grant, OAuthError> {
        let file = match File::open(self.file()) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(self.not_logged_in());
            }
            Err(error) => return Err(self.unusable(&error)),
        };
        let mode = file.metadata().map_err(|error| self.unusable(&error))?;
        let mode = mode.permissions().mode();
        if mode & OTHERS != 0 {
            return Err(self.broken(
                format!("is open to others (mode {:03o})", mode & 0o777),
                format!(
                    "chmod 600 {}; if others may have read it, log out and in again",
                    self.file().display()
                ),
            ));
        }
        let mut bytes = Vec::new();
        (file.take(FILE_BYTES_MAX).read_to_end(&mut bytes))
            .map_err(|error| self.unusable(&error))?;
        let text = seal::open(key, &self.account, &bytes).map_err(|broken| match broken {
            Broken::NotOurs => self.broken("is no file of Postrider's".into(), "LOGIN".into()),
            Broken::NotOpened => self.broken(
                "cannot be opened: it was sealed with another key, for another account, or is damaged"
                    .into(),
                "give oauth.key its old value back, or LOGIN".into(),
            ),
        })?;
        let kept: Kept<String> = serde_json::from_slice(&text)
            .map_err(|_| self.broken("holds no grant".into(), "LOGIN".into()))?;
        Ok(Grant {
            access_token: kept.access_token.into(),
            refresh_token: kept.refresh_token.into(),
            issued_at: kept.issued_at,
            expires_at: kept.expires_at,
            hub_id: kept.hub_id,
            scopes: kept.scopes,
            client_id: kept.client_id,
        })
    }

    /// The grant, if it is of this app.
    ///
    /// # Errors
    /// As [`Store::read`]; [`OAuthError::Store`] where it is of another app.
    pub fn read_of(&self, key: &Key, client_id: &str) -> Result<Grant, OAuthError> {
        let grant = self.read(key)?;
        if grant.client_id == client_id {
            return Ok(grant);
        }
        Err(self.broken(
            "is of another app than oauth.client_id".into(),
            "give oauth.client_id its old value back, or LOGIN".into(),
        ))
    }

    /// Writes a grant in the place of the old one: all of it or nothing, also when the power fails.
    ///
    /// # Errors
    /// [`OAuthError::Store`] when the disk does not take it.
    pub fn write(&self, key: &Key, grant: &Grant, lock: &Lock) -> Result<(), OAuthError> {
        self.commit(self.draft(lock)?, key, grant)
    }

    /// Everything that can be done before the new grant is known. A disk that is full or may not be
    /// written is met here, and not when the old refresh token is spent.
    pub(super) fn draft(&self, _: &Lock) -> Result<Draft, OAuthError> {
        self.remove_drafts();
        let make = || {
            let mut file = tempfile::Builder::new()
                .prefix(&self.draft_prefix())
                .suffix(".tmp")
                .permissions(fs::Permissions::from_mode(MODE))
                .tempfile_in(&self.folder)?;
            file.write_all(&[0; DRAFT_BYTES])?;
            file.as_file().sync_all()?;
            Ok(Draft(file))
        };
        make().map_err(|error: io::Error| self.unusable(&error))
    }

    pub(super) fn commit(&self, draft: Draft, key: &Key, grant: &Grant) -> Result<(), OAuthError> {
        let kept = Kept {
            access_token: grant.access_token.expose_secret(),
            refresh_token: grant.refresh_token.expose_secret(),
            issued_at: grant.issued_at,
            expires_at: grant.expires_at,
            hub_id: grant.hub_id,
            scopes: grant.scopes.clone(),
            client_id: grant.client_id.clone(),
        };
        let sealed = serde_json::to_vec(&kept)
            .ok()
            .and_then(|text| seal::seal(key, &self.account, text))
            .ok_or_else(|| {
                self.broken(
                    "cannot be sealed: the system gives no random numbers".into(),
                    "restart the machine".into(),
                )
            })?;
        let write = |Draft(mut file): Draft| {
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&sealed)?;
            file.as_file().set_len(sealed.len() as u64)?;
            file.as_file().sync_all()?;
            file.persist(self.file()).map_err(|error| error.error)?;
            File::open(&self.folder)?.sync_all()
        };
        write(draft).map_err(|error| self.unusable(&error))
    }

    /// Forgets the grant. Whether there was one.
    ///
    /// # Errors
    /// [`OAuthError::Store`] when it cannot be removed.
    pub fn remove(&self, _: &Lock) -> Result<bool, OAuthError> {
        self.remove_drafts();
        match fs::remove_file(self.file()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.unusable(&error)),
        }
    }

    /// The lock, once no other process holds it.
    ///
    /// # Errors
    /// [`OAuthError::Busy`] after half a minute, else as [`Store::try_lock`].
    pub async fn lock(&self) -> Result<Lock, OAuthError> {
        let until = Instant::now() + LOCK_TIME_MAX;
        loop {
            let store = self.clone();
            let tried = tokio::task::spawn_blocking(move || store.try_lock()).await;
            if let Some(lock) = tried.map_err(|error| lost(&error))?? {
                return Ok(lock);
            }
            if Instant::now() >= until {
                return Err(OAuthError::Busy {
                    file: self.lock_file().display().to_string(),
                });
            }
            tokio::time::sleep(LOCK_EVERY).await;
        }
    }

    /// The lock, or `None` while another process (or another handle of this one) holds it. The system
    /// lets go of a dead process's. Makes the folder.
    ///
    /// # Errors
    /// [`OAuthError::Store`] when the folder cannot be made or written.
    pub fn try_lock(&self) -> Result<Option<Lock>, OAuthError> {
        let open = || {
            DirBuilder::new()
                .recursive(true)
                .mode(FOLDER_MODE)
                .create(&self.folder)?;
            OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(MODE)
                .open(self.lock_file())
        };
        let file = open().map_err(|error| self.unusable(&error))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock(file))),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(self.unusable(&error)),
        }
    }

    /// It stays: whoever removed it might remove the one that another process has just locked.
    pub(super) fn lock_file(&self) -> PathBuf {
        self.folder.join(format!("{}.lock", self.account))
    }

    /// Of a process that died over one. They are sealed, or empty, and nobody reads them.
    fn remove_drafts(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return;
        };
        let prefix = self.draft_prefix();
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(&prefix) && name.ends_with(".tmp") {
                fs::remove_file(entry.path()).ok();
            }
        }
    }

    /// An account's name has no dot, so that no other's begins with this one.
    fn draft_prefix(&self) -> String {
        format!(".{}.grant.", self.account)
    }

    /// There is no file.
    #[must_use]
    pub fn not_logged_in(&self) -> OAuthError {
        OAuthError::NotLoggedIn {
            account: self.account.clone(),
            file: self.file().display().to_string(),
        }
    }

    fn unusable(&self, error: &io::Error) -> OAuthError {
        self.broken(
            format!("cannot be used: {error}"),
            format!(
                "make {} a folder that this user may write, on a disk with room",
                self.folder.display()
            ),
        )
    }

    fn broken(&self, why: String, hint: String) -> OAuthError {
        OAuthError::Store {
            file: self.file().display().to_string(),
            why,
            hint,
        }
    }
}

#[cfg(test)]
mod tests;
