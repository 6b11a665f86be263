use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
};

use proptest::prelude::*;

use super::*;

const LINE: &[u8] = b"user1@example.org----pass1";

proptest! {
    #[test]
    fn a_ciphertext_is_decrypted_to_its_plaintext(plain in proptest::collection::vec(any::<u8>(), 0..300), owner in "[a-z:0-9]{0,20}") {
        let envelope = Envelope::generate();
        let sealed = envelope.encrypt("stock", &owner, &plain);
        prop_assert_eq!(sealed.len(), plain.len() + OVERHEAD);
        prop_assert_eq!(&*envelope.decrypt("stock", &owner, &sealed).unwrap(), &plain);
    }

    #[test]
    fn no_bytes_make_decryption_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
        prop_assert!(Envelope::generate().decrypt("stock", "sku:1", &bytes).is_err());
    }
}

#[test]
fn a_ciphertext_cannot_be_decrypted_for_another_owner_or_purpose() {
    let envelope = Envelope::generate();
    let sealed = envelope.encrypt("stock", "sku:1", LINE);
    for (purpose, owner) in [("stock", "sku:2"), ("stoc", "ksku:1"), ("webhook", "sku:1"), ("stock", "")] {
        assert_eq!(
            envelope.decrypt(purpose, owner, &sealed).unwrap_err(),
            DecryptError::NotAuthentic,
            "{purpose} {owner}"
        );
    }
}

#[test]
fn every_flipped_bit_is_detected() {
    let envelope = Envelope::generate();
    let sealed = envelope.encrypt("stock", "sku:1", LINE);
    for bit in 0..sealed.len() * 8 {
        let mut altered = sealed.clone();
        altered[bit / 8] ^= 1 << (bit % 8);
        assert!(envelope.decrypt("stock", "sku:1", &altered).is_err(), "bit {bit}");
    }
    for length in 0..sealed.len() {
        assert!(envelope.decrypt("stock", "sku:1", &sealed[..length]).is_err(), "{length} bytes");
    }
}

#[test]
fn equal_texts_have_different_ciphertexts_and_one_digest() {
    let envelope = Envelope::generate();
    assert_ne!(envelope.encrypt("stock", "sku:1", LINE), envelope.encrypt("stock", "sku:1", LINE));
    assert_eq!(envelope.digest("stock", LINE), envelope.digest("stock", LINE));
    assert_ne!(envelope.digest("stock", LINE), envelope.digest("webhook", LINE));
    assert_ne!(envelope.digest("ab", b"c"), envelope.digest("a", b"bc"));
    assert_ne!(envelope.digest("stock", LINE), Envelope::generate().digest("stock", LINE));
}

#[test]
fn a_new_key_encrypts_and_the_old_keys_still_decrypt() {
    let folder = tempfile::tempdir().unwrap();
    let before = Envelope::create_new_key_file(folder.path()).unwrap();
    let old = before.encrypt("stock", "sku:1", LINE);
    assert_eq!(add_random_key_to_file(folder.path()).unwrap(), 2);
    assert_eq!(add_random_key_to_file(folder.path()).unwrap(), 3);

    let after = Envelope::load_credential_or_key_file(folder.path()).unwrap();
    let new = after.encrypt("stock", "sku:1", LINE);
    assert_eq!((&old[1..5], &new[1..5]), (&[0, 0, 0, 1][..], &[0, 0, 0, 3][..]));
    assert_eq!(&**after.decrypt("stock", "sku:1", &old).unwrap(), LINE);
    assert_eq!(after.digest("stock", LINE), before.digest("stock", LINE), "the digest is the same after a rotation");
    assert_eq!(before.decrypt("stock", "sku:1", &new).unwrap_err(), DecryptError::UnknownKey(3));
}

#[test]
fn only_the_owner_may_read_the_key_file_and_it_is_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE_NAME);
    assert!(
        matches!(Envelope::load_credential_or_key_file(folder.path()), Err(KeysError::Io { .. })),
        "there is no key file yet"
    );
    let sealed = Envelope::load_key_file_or_create_if_none(folder.path()).unwrap().encrypt("stock", "sku:1", LINE);
    let content = fs::read(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);

    assert!(matches!(Envelope::create_new_key_file(folder.path()), Err(KeysError::Exists(_))));
    assert_eq!(fs::read(&path).unwrap(), content);
    let again = Envelope::load_key_file_or_create_if_none(folder.path()).unwrap();
    assert_eq!(&**again.decrypt("stock", "sku:1", &sealed).unwrap(), LINE);

    add_random_key_to_file(folder.path()).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let error = Envelope::load_credential_or_key_file(folder.path()).unwrap_err().to_string();
    assert!(error.contains("mode 640") && error.contains("chmod 600"), "{error}");
}

#[test]
fn a_malformed_key_file_is_rejected_with_the_line_number() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE_NAME);
    let key: String = (0..32).map(|byte| format!("{:02x}", byte * 7 + 3)).collect();
    for (text, expected) in [
        (String::new(), "the file has no key"),
        (format!("1 {key}\n1 {key}\n"), "line 2: the id is not greater"),
        (format!("# c\none {key}\n"), "line 2: the id is not a number"),
        (format!("1 {}\n", &key[2..]), "line 1: the key is not 64"),
        (format!("1{key}\n"), "line 1: the line is not an id, a space and a key"),
    ] {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let error = Envelope::load_credential_or_key_file(folder.path()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        // No part of the key may be repeated: eight hex digits are four bytes of it.
        for window in key.as_bytes().windows(8).map(|window| std::str::from_utf8(window).unwrap()) {
            assert!(!error.contains(window), "{error}");
        }
    }
}

#[test]
fn debug_output_shows_no_key() {
    assert_eq!(format!("{:?}", Envelope::generate()), "Envelope(keys [1])");
}
