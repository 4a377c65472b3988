use super::*;

fn key(byte: u8) -> Key {
    SecretBox::new(Box::new([byte; OAUTH_KEY_BYTES]))
}

fn grant(token: &str) -> Grant {
    let now: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
    Grant {
        access_token: format!("access-{token}").into(),
        refresh_token: format!("refresh-{token}").into(),
        issued_at: now,
        expires_at: now,
        hub_id: Some(42),
        scopes: Some(vec!["oauth".into()]),
        client_id: "app".into(),
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn store(folder: &Path, account: &str) -> Store {
    Store::new(&AccountName::parse(account).unwrap(), folder)
}

#[test]
fn a_grant_is_kept_for_its_owner_alone_and_sealed() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("deep/oauth");
    let store = store(&folder, "shop");
    assert!(matches!(
        store.read(&key(1)),
        Err(OAuthError::NotLoggedIn { .. })
    ));
    let lock = store.try_lock().unwrap().unwrap();
    store.write(&key(1), &grant("one"), &lock).unwrap();
    store.write(&key(1), &grant("two"), &lock).unwrap();
    let read = store.read(&key(1)).unwrap();
    assert_eq!(read.refresh_token.expose_secret(), "refresh-two");
    assert_eq!((read.hub_id, read.client_id.as_str()), (Some(42), "app"));
    assert_eq!((mode(&folder), mode(&store.file())), (0o700, 0o600));
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(
            !text.contains("refresh-") && !text.contains("oauth"),
            "{path:?}"
        );
    }
    assert!(store.remove(&lock).unwrap());
    assert!(!store.remove(&lock).unwrap());
}

#[test]
fn what_is_no_grant_of_this_account_tells_the_next_step() {
    let folder = tempfile::tempdir().unwrap();
    let shop = store(folder.path(), "shop");
    let lock = shop.try_lock().unwrap().unwrap();
    shop.write(&key(1), &grant("one"), &lock).unwrap();
    let told = |store: &Store, key: &Key| {
        let error = store.read(key).unwrap_err();
        format!("{error}; {}", error.hint(&store.account))
    };
    let wrong_key = told(&shop, &key(2));
    assert!(wrong_key.contains("another key"), "{wrong_key}");
    assert!(
        wrong_key.contains("auth login --account shop"),
        "{wrong_key}"
    );
    let other = store(folder.path(), "other");
    fs::copy(shop.file(), other.file()).unwrap();
    assert!(told(&other, &key(1)).contains("for another account"));
    fs::set_permissions(shop.file(), fs::Permissions::from_mode(0o640)).unwrap();
    let open = told(&shop, &key(1));
    assert!(
        open.contains("mode 640") && open.contains("chmod 600"),
        "{open}"
    );
    fs::write(other.file(), "{}").unwrap();
    assert!(told(&other, &key(1)).contains("is no file of Postrider's"));
}

#[test]
fn a_crash_leaves_the_old_grant_or_the_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), "shop");
    let lock = store.try_lock().unwrap().unwrap();
    store.write(&key(1), &grant("one"), &lock).unwrap();
    // The process dies over its draft: nothing of it is ever read, and the next one removes it.
    let draft = store
        .draft(&lock)
        .unwrap()
        .0
        .into_temp_path()
        .keep()
        .unwrap();
    fs::write(&draft, "half of a gr").unwrap();
    let read = store.read(&key(1)).unwrap();
    assert_eq!(read.refresh_token.expose_secret(), "refresh-one");
    store.write(&key(1), &grant("two"), &lock).unwrap();
    assert!(!draft.exists());
    let read = store.read(&key(1)).unwrap();
    assert_eq!(read.refresh_token.expose_secret(), "refresh-two");
}

#[test]
fn one_at_a_time_may_write() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (store(folder.path(), "shop"), store(folder.path(), "shop"));
    let lock = one.try_lock().unwrap().unwrap();
    assert!(other.try_lock().unwrap().is_none());
    assert!(store(folder.path(), "lane").try_lock().unwrap().is_some());
    drop(lock);
    assert!(other.try_lock().unwrap().is_some());
}
