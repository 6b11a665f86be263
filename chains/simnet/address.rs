//! Parses and formats addresses in the real format of each family.

use std::str::FromStr;

use bitcoin::{WitnessVersion, address::NetworkUnchecked, base58};
use chain::{Address, AddressKey, Family};

/// The error for a text that is not an address of the family.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an address: {reason}")]
pub struct InvalidAddress {
    /// The rejected text, shortened to 100 characters.
    pub text: String,
    /// The reason for the rejection, as the end of the error message.
    pub reason: &'static str,
}

/// Parses an address of the family. For Bitcoin, P2WPKH and P2TR addresses of all Bitcoin networks are accepted,
/// because the network changes only the prefix of an address.
pub fn parse_address(family: Family, text: &str) -> Result<Address, InvalidAddress> {
    let parsed = match family {
        Family::Bitcoin => parse_bitcoin_address(text),
        Family::Evm => parse_evm_address(text),
        Family::Tron => parse_tron_address(text),
    };
    parsed.map_err(|reason| InvalidAddress { text: text.chars().take(100).collect(), reason })
}

/// Returns the address of a public key in the format of the family. For Bitcoin this is P2WPKH on regtest.
pub fn address_from_public_key(family: Family, key: &bitcoin::secp256k1::PublicKey) -> Address {
    let account = || {
        let hash = alloy_primitives::keccak256(&key.serialize_uncompressed()[1..]);
        AddressKey(hash[12..].try_into().expect("32 − 12 bytes"))
    };
    match family {
        Family::Bitcoin => {
            let key = bitcoin::CompressedPublicKey(*key);
            let program: [u8; 20] = *AsRef::<[u8; 20]>::as_ref(&key.wpubkey_hash());
            let text = bitcoin::Address::p2wpkh(&key, bitcoin::KnownHrp::Regtest).to_string();
            Address { key: AddressKey(program), text }
        }
        Family::Evm => chain::address::encode_evm_address(account()),
        Family::Tron => chain::address::encode_tron_address(account()),
    }
}

/// Returns the address of a transaction's sender as text; `None` on Bitcoin, where a transaction has no single sender.
pub fn format_sender_unless_bitcoin(family: Family, account: AddressKey) -> Option<String> {
    match family {
        Family::Bitcoin => None,
        Family::Evm => Some(chain::address::encode_evm_address(account).text),
        Family::Tron => Some(chain::address::encode_tron_address(account).text),
    }
}

fn parse_bitcoin_address(text: &str) -> Result<Address, &'static str> {
    let address = bitcoin::Address::<NetworkUnchecked>::from_str(text)
        .map_err(|_| "it is not Bech32, or its checksum is wrong")?
        .assume_checked();
    let program = address.witness_program().ok_or("only P2WPKH and P2TR are supported")?;
    let bytes = program.program().as_bytes();
    let known = (program.version() == WitnessVersion::V0 && bytes.len() == 20)
        || (program.version() == WitnessVersion::V1 && bytes.len() == 32);
    if !known {
        return Err("only P2WPKH and P2TR are supported");
    }
    let key = match <&[u8; 32]>::try_from(bytes) {
        Ok(output) => chain::address::hash_p2tr_output_key(output),
        Err(_) => AddressKey(bytes.try_into().expect("20 or 32 bytes")),
    };
    Ok(Address { key, text: address.to_string() })
}

fn parse_evm_address(text: &str) -> Result<Address, &'static str> {
    let digits = text.strip_prefix("0x").ok_or("it does not begin with 0x")?;
    let key: [u8; 20] = const_hex::decode_to_array(digits).map_err(|_| "it does not have 40 hexadecimal digits")?;
    let address = chain::address::encode_evm_address(AddressKey(key));
    let has = |case: fn(&char) -> bool| digits.chars().any(|c| case(&c));
    if has(char::is_ascii_lowercase) && has(char::is_ascii_uppercase) && address.text != text {
        return Err("its EIP-55 checksum is wrong");
    }
    Ok(address)
}

fn parse_tron_address(text: &str) -> Result<Address, &'static str> {
    let payload = base58::decode_check(text).map_err(|_| "it is not Base58, or its checksum is wrong")?;
    match payload.as_slice() {
        [0x41, key @ ..] if key.len() == 20 => {
            Ok(chain::address::encode_tron_address(AddressKey(key.try_into().expect("the length was checked"))))
        }
        _ => Err("it is not a TRON account (version 0x41, 20 bytes)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_texts_of_every_family_are_parsed() {
        let good = [
            (
                Family::Bitcoin,
                "bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu",
                "bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu",
            ),
            (
                Family::Bitcoin,
                "BC1QCR8TE4KR609GCAWUTMRZA0J4XV80JY8Z306FYU",
                "bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyu",
            ),
            (
                Family::Bitcoin,
                "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr",
                "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr",
            ),
            (Family::Evm, "0x9858effd232b4033e47d90003d41ec34ecaeda94", "0x9858EfFD232B4033E47d90003D41EC34EcaEda94"),
            (Family::Evm, "0x9858EfFD232B4033E47d90003D41EC34EcaEda94", "0x9858EfFD232B4033E47d90003D41EC34EcaEda94"),
            (Family::Evm, "0x9858EFFD232B4033E47D90003D41EC34ECAEDA94", "0x9858EfFD232B4033E47d90003D41EC34EcaEda94"),
            (Family::Tron, "TUEZSdKsoDHQMeZwihtdoBiN46zxhGWYdH", "TUEZSdKsoDHQMeZwihtdoBiN46zxhGWYdH"),
        ];
        for (family, text, canonical) in good {
            assert_eq!(parse_address(family, text).unwrap().text, canonical);
        }
    }

    #[test]
    fn texts_that_wallets_refuse_are_invalid() {
        let bad = [
            (Family::Bitcoin, "bc1qcr8te4kr609gcawutmrza0j4xv80jy8z306fyv"),
            (Family::Bitcoin, "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"),
            (Family::Bitcoin, "bc1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qccfmv3"),
            (Family::Evm, "0x9858eFFD232B4033E47d90003D41EC34EcaEda94"),
            (Family::Evm, "9858EfFD232B4033E47d90003D41EC34EcaEda94"),
            (Family::Evm, "0x9858EfFD232B4033E47d90003D41EC34EcaEda9"),
            (Family::Evm, "TUEZSdKsoDHQMeZwihtdoBiN46zxhGWYdH"),
            (Family::Tron, "TUEZSdKsoDHQMeZwihtdoBiN46zxhGWYdh"),
            (Family::Tron, "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"),
            (Family::Tron, ""),
        ];
        for (family, text) in bad {
            assert!(parse_address(family, text).is_err(), "{family:?} {text}");
        }
    }
}
