//! The seed, from which all keys are derived (BIP39, BIP32).
//!
//! A [`Seed`] has no `Debug`, no `Clone` and no serialisation. It leaves this process only in a seed file, or as the
//! words that are shown once when it is created.

use std::fmt::Write as _;

use bip32::{ChildNumber, XPrv};
use bip39::{Language, Mnemonic};
use rand::{
    TryRng,
    rngs::{SysError, SysRng},
};
use secrecy::{ExposeSecret, SecretBox, SecretString};
use zeroize::Zeroizing;

/// The maximum length of a BIP39 passphrase, in bytes of UTF-8. BIP39 has no limit, but the seed file has a fixed size.
pub const PASSPHRASE_MAX: usize = 256;

/// The entropy of a new seed, in bytes; it gives 24 words.
const NEW_ENTROPY: usize = 32;

/// The length of the BIP39 seed that is derived from the words, in bytes.
const STRETCHED: usize = 64;

/// The capacity in bytes for the text of 24 words, with a space after each; the longest English word has 8 letters. The
/// text is allocated with this size, because a reallocation would leave a copy of the words in memory.
const WORDS_CAPACITY: usize = 24 * 9;

/// The reason why words or entropy are not a valid seed. No variant contains a word, because an error may be written to
/// a log.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// The text has this number of words, but a mnemonic has 12, 15, 18, 21 or 24.
    #[error("a mnemonic has 12, 15, 18, 21 or 24 words, not {0}")]
    WordCount(usize),
    /// A word is not in the English BIP39 list. The field is the position of the word, counted from 1.
    #[error("word {0} is not in the English BIP39 list")]
    UnknownWord(usize),
    /// All words are in the list, but the checksum in the last word does not match.
    #[error("the BIP39 checksum is wrong: a word is wrong, or the order of the words is")]
    Checksum,
    /// The entropy has this number of bits, but BIP39 defines words only for 128 to 256 bits in steps of 32.
    #[error("entropy has 128 to 256 bits in steps of 32, not {0}")]
    EntropyBits(usize),
    /// The BIP39 passphrase is longer than [`PASSPHRASE_MAX`] bytes, so it does not fit into the seed file.
    #[error("the BIP39 passphrase is longer than {PASSPHRASE_MAX} bytes")]
    PassphraseTooLong,
}

/// BIP39 words with their passphrase, and the 64-byte seed derived from them. All three are wiped from memory when this
/// value is dropped.
///
/// A seed can neither be printed nor cloned:
///
/// ```compile_fail,E0277
/// fn print(seed: &signer::seed::Seed) -> String { format!("{seed:?}") }
/// ```
///
/// ```compile_fail,E0599
/// fn copy(seed: &signer::seed::Seed) -> signer::seed::Seed { signer::seed::Seed::clone(seed) }
/// ```
pub struct Seed {
    words: Mnemonic,
    passphrase: SecretString,
    stretched: SecretBox<[u8; STRETCHED]>,
}

impl Seed {
    /// Returns a new seed of 24 words, with 256 bits of entropy from the operating system and without a BIP39
    /// passphrase.
    ///
    /// # Errors
    ///
    /// Fails when the operating system returns no entropy.
    pub fn generate() -> Result<Seed, SysError> {
        let mut entropy = Zeroizing::new([0u8; NEW_ENTROPY]);
        SysRng.try_fill_bytes(entropy.as_mut_slice())?;
        let words = Mnemonic::from_entropy_in(Language::English, entropy.as_slice())
            .expect("BIP39 defines 24 words for 256 bits");
        Ok(Seed::stretch_mnemonic_to_seed(words, SecretString::default()))
    }

    /// Returns the seed of 12 to 24 English words (BIP39). Case and spacing do not matter. An empty `passphrase` stands
    /// for no BIP39 passphrase.
    ///
    /// # Errors
    ///
    /// Fails when the words are not a valid mnemonic, or the passphrase is too long.
    pub fn from_words(words: &SecretString, passphrase: SecretString) -> Result<Seed, SeedError> {
        let lower = Zeroizing::new(words.expose_secret().to_ascii_lowercase());
        Seed::from_parsed_words(Mnemonic::parse_in_normalized(Language::English, &lower), passphrase)
    }

    /// Returns the seed of 16, 20, 24, 28 or 32 bytes of entropy. An empty `passphrase` stands for no BIP39 passphrase.
    ///
    /// # Errors
    ///
    /// Fails when the entropy has another length, or the passphrase is too long.
    pub fn from_entropy(entropy: &[u8], passphrase: SecretString) -> Result<Seed, SeedError> {
        Seed::from_parsed_words(Mnemonic::from_entropy_in(Language::English, entropy), passphrase)
    }

    /// Returns the words, separated by spaces.
    pub fn words(&self) -> SecretString {
        let mut text = String::with_capacity(WORDS_CAPACITY);
        write!(text, "{}", self.words).expect("writing to a String does not fail");
        SecretString::from(text)
    }

    /// Returns the BIP32 fingerprint of the master key: eight hexadecimal digits that identify the seed. The
    /// fingerprint may be printed.
    pub fn fingerprint(&self) -> String {
        const_hex::encode(self.derive_private_key(&[]).public_key().fingerprint())
    }

    /// Returns the entropy of the words: 16, 20, 24, 28 or 32 bytes.
    pub(crate) fn entropy(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.words.to_entropy())
    }

    /// Returns the BIP39 passphrase, which is empty when there is none.
    pub(crate) fn passphrase(&self) -> &SecretString {
        &self.passphrase
    }

    /// Returns the private key at a path from the master key. The key is wiped from memory when it is dropped. Callers
    /// derive a key where they use it and never store it.
    pub(crate) fn derive_private_key(&self, path: &[ChildNumber]) -> XPrv {
        let master = XPrv::new(self.stretched.expose_secret());
        path.iter()
            .fold(master, |key, &child| key?.derive_child(child))
            .expect("an invalid key has a probability below 2^-127 (BIP32)")
    }

    /// Returns the seed of the parsed `words`, or the error if `words` is an error or the passphrase is too long.
    fn from_parsed_words(words: Result<Mnemonic, bip39::Error>, passphrase: SecretString) -> Result<Seed, SeedError> {
        if passphrase.expose_secret().len() > PASSPHRASE_MAX {
            return Err(SeedError::PassphraseTooLong);
        }
        Ok(Seed::stretch_mnemonic_to_seed(words?, passphrase))
    }

    /// Returns the seed of a mnemonic, which includes the 64 bytes that PBKDF2 derives from the words and the
    /// passphrase (BIP39).
    fn stretch_mnemonic_to_seed(words: Mnemonic, passphrase: SecretString) -> Seed {
        let stretched = Zeroizing::new(words.to_seed(passphrase.expose_secret()));
        Seed { words, passphrase, stretched: SecretBox::new(Box::new(*stretched)) }
    }
}

impl From<bip39::Error> for SeedError {
    fn from(error: bip39::Error) -> SeedError {
        match error {
            bip39::Error::BadWordCount(count) => SeedError::WordCount(count),
            bip39::Error::UnknownWord(index) => SeedError::UnknownWord(index + 1),
            bip39::Error::BadEntropyBitCount(bits) => SeedError::EntropyBits(bits),
            // `AmbiguousLanguages` does not occur, because the language is given.
            bip39::Error::InvalidChecksum | bip39::Error::AmbiguousLanguages(_) => SeedError::Checksum,
        }
    }
}

#[cfg(test)]
mod tests {
    use bip32::Prefix;

    use super::*;

    fn seed(words: &str, passphrase: &str) -> Result<Seed, SeedError> {
        Seed::from_words(&SecretString::from(words), SecretString::from(passphrase))
    }

    /// Vectors of the BIP39 reference implementation: entropy, words, and the seed with the passphrase `TREZOR`.
    const BIP39_VECTORS: [(&str, &str, &str); 4] = [
        (
            "00000000000000000000000000000000",
            "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about",
            "c55257c360c07c72029aebc1b53c05ed0362ada38ead3e3e9efa3708e53495531f09a6987599d18264c1e1c92f2cf141630c7a3c4ab7c81b2f001698e7463b04",
        ),
        (
            "7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f",
            "legal winner thank year wave sausage worth useful legal winner thank yellow",
            "2e8905819b8723fe2c1d161860e5ee1830318dbf49a83bd451cfb8440c28bd6fa457fe1296106559a3c80937a1c1069be3a3a5bd381ee6260e8d9739fce1f607",
        ),
        (
            "808080808080808080808080808080808080808080808080",
            "letter advice cage absurd amount doctor acoustic avoid letter advice cage absurd amount doctor acoustic avoid letter always",
            "107d7c02a5aa6f38c58083ff74f04c607c2d2c0ecc55501dadd72d025b751bc27fe913ffb796f841c49b1d33b610cf0e91d3aa239027f5e99fe4ce9e5088cd65",
        ),
        (
            "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
            "zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo vote",
            "dd48c104698c30cfe2b6142103248622fb7bb0ff692eebb00089b32d22484e1613912f0a5b694407be899ffd31ed3992c456cdf60f5d4564b8ba3f05a69890ad",
        ),
    ];

    #[test]
    fn seeds_match_the_bip39_vectors() {
        for (entropy, words, stretched) in BIP39_VECTORS {
            let entropy = const_hex::decode(entropy).unwrap();
            let from_words = seed(words, "TREZOR").unwrap();
            let from_entropy = Seed::from_entropy(&entropy, SecretString::from("TREZOR")).unwrap();
            assert_eq!(const_hex::encode(from_words.stretched.expose_secret()), stretched);
            assert_eq!(from_entropy.stretched.expose_secret(), from_words.stretched.expose_secret());
            assert_eq!(*from_words.entropy(), entropy);
            assert_eq!(from_entropy.words().expose_secret(), words);
        }
    }

    /// Test vector 1 of BIP32: the path m/0'/1/2'/2/1000000000 of a 16-byte seed.
    #[test]
    fn derived_keys_match_the_bip32_vector() {
        let master = XPrv::new(&const_hex::decode("000102030405060708090a0b0c0d0e0f").unwrap()).unwrap();
        let expected = [
            (
                None,
                "xpub661MyMwAqRbcFtXgS5sYJABqqG9YLmC4Q1Rdap9gSE8NqtwybGhePY2gZ29ESFjqJoCu1Rupje8YtGqsefD265TMg7usUDFdp6W1EGMcet8",
            ),
            (
                Some((0, true)),
                "xpub68Gmy5EdvgibQVfPdqkBBCHxA5htiqg55crXYuXoQRKfDBFA1WEjWgP6LHhwBZeNK1VTsfTFUHCdrfp1bgwQ9xv5ski8PX9rL2dZXvgGDnw",
            ),
            (
                Some((1, false)),
                "xpub6ASuArnXKPbfEwhqN6e3mwBcDTgzisQN1wXN9BJcM47sSikHjJf3UFHKkNAWbWMiGj7Wf5uMash7SyYq527Hqck2AxYysAA7xmALppuCkwQ",
            ),
            (
                Some((2, true)),
                "xpub6D4BDPcP2GT577Vvch3R8wDkScZWzQzMMUm3PWbmWvVJrZwQY4VUNgqFJPMM3No2dFDFGTsxxpG5uJh7n7epu4trkrX7x7DogT5Uv6fcLW5",
            ),
            (
                Some((2, false)),
                "xpub6FHa3pjLCk84BayeJxFW2SP4XRrFd1JYnxeLeU8EqN3vDfZmbqBqaGJAyiLjTAwm6ZLRQUMv1ZACTj37sR62cfN7fe5JnJ7dh8zL4fiyLHV",
            ),
            (
                Some((1_000_000_000, false)),
                "xpub6H1LXWLaKsWFhvm6RVpEL9P4KfRZSW7abD2ttkWP3SSQvnyA8FSVqNTEcYFgJS2UaFcxupHiYkro49S8yGasTvXEYBVPamhGW6cFJodrTHy",
            ),
        ];
        let mut key = master;
        for (step, xpub) in expected {
            if let Some((index, hardened)) = step {
                key = key.derive_child(ChildNumber::new(index, hardened).unwrap()).unwrap();
            }
            assert_eq!(key.public_key().to_extended_key(Prefix::XPUB).to_string(), xpub);
        }
    }

    #[test]
    fn words_are_accepted_in_any_case_and_spacing() {
        let (_, words, _) = BIP39_VECTORS[1];
        let untidy = format!("  {}\n", words.to_uppercase().replace(' ', " \t"));
        assert_eq!(seed(&untidy, "").unwrap().fingerprint(), seed(words, "").unwrap().fingerprint());
    }

    #[test]
    fn an_error_contains_the_position_of_a_wrong_word_and_not_the_word() {
        assert!(matches!(seed("zoo zoo", ""), Err(SeedError::WordCount(2))));
        let unknown = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon sekret about";
        let Err(error) = seed(unknown, "") else { panic!("an unknown word was accepted") };
        assert!(matches!(error, SeedError::UnknownWord(11)));
        assert!(!format!("{error} {error:?}").contains("sekret"));
        let swapped = "about abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon";
        assert!(matches!(seed(swapped, ""), Err(SeedError::Checksum)));
        assert!(matches!(seed(BIP39_VECTORS[0].1, &"x".repeat(257)), Err(SeedError::PassphraseTooLong)));
        assert!(matches!(Seed::from_entropy(&[0; 15], SecretString::default()), Err(SeedError::EntropyBits(120))));
    }

    #[test]
    fn new_seeds_have_24_words_and_differ() {
        let (one, two) = (Seed::generate().unwrap(), Seed::generate().unwrap());
        assert_eq!(one.words().expose_secret().split(' ').count(), 24);
        assert_ne!(one.fingerprint(), two.fingerprint());
    }
}
