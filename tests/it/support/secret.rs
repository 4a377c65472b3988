//! Files that hold a secret.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Puts a text there, for its owner's eyes alone, so that a reader finds the old one or the new one.
pub fn keep(path: &Path, text: &str) {
    keep_with_mode(path, text, 0o600);
}

pub fn keep_with_mode(path: &Path, text: &str, mode: u32) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(mode)).unwrap();
    fs::rename(&new, path).unwrap();
}
