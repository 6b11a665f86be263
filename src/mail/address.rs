//! E-mail addresses of buyers: parsing, the form to which mail is sent, and the form in which addresses are compared.

use email_address::{EmailAddress, Options};
use idna::AsciiDenyList;
use unicode_normalization::UnicodeNormalization;

/// The maximum length of an e-mail address, in bytes (RFC 5321, section 4.5.3.1.3, without the angle brackets).
const ADDRESS_LENGTH_MAX: usize = 254;
/// The maximum length of the part before the `@`, in bytes (RFC 5321, section 4.5.3.1.1).
const LOCAL_PART_LENGTH_MAX: usize = 64;

/// An e-mail address to which mail can be sent. The type has no `Debug`, because addresses must not be logged.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    local_part: String,
    domain: String,
}

/// The error for a text that is not a valid e-mail address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a valid e-mail address")]
pub struct InvalidAddress;

impl Address {
    /// Parses an e-mail address. Accepts no display name, no IP address as the domain, and only domains of at least two
    /// labels. Converts the domain to its ASCII form (A-labels) and the part before the `@` to Unicode's composed form
    /// (NFC). Keeps upper and lower case in the part before the `@`, because mail servers may distinguish them.
    ///
    /// # Errors
    /// Fails when the text is not such an address, is too long, or is refused by the mail library.
    pub fn parse_address(text: &str) -> Result<Address, InvalidAddress> {
        let (local_part, domain) = text.trim().rsplit_once('@').ok_or(InvalidAddress)?;
        let local_part: String = local_part.nfc().collect();
        let domain = idna::domain_to_ascii_cow(domain.as_bytes(), AsciiDenyList::STD3).map_err(|_| InvalidAddress)?;
        let ascii = format!("{local_part}@{domain}");
        let options = Options { minimum_sub_domains: 2, allow_domain_literal: false, allow_display_text: false };
        let is_valid = ascii.len() <= ADDRESS_LENGTH_MAX
            && local_part.len() <= LOCAL_PART_LENGTH_MAX
            && !local_part.chars().any(char::is_control)
            // A domain whose last label has only digits is an IP address, which is refused.
            && !domain.rsplit('.').next().is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit()))
            && EmailAddress::parse_with_options(&ascii, options).is_ok()
            && lettre::Address::new(&local_part, &*domain).is_ok();
        if is_valid { Ok(Address { local_part, domain: domain.into_owned() }) } else { Err(InvalidAddress) }
    }

    /// Returns the address as text, with the domain in ASCII form. Mail is sent to this text.
    pub fn to_text(&self) -> String {
        format!("{}@{}", self.local_part, self.domain)
    }

    /// Returns the text by which addresses are compared: in lower case, in composed Unicode, and with the domain in
    /// ASCII form. All spellings of one address have the same text.
    pub fn to_canonical_text(&self) -> String {
        let local_part: String = self.local_part.to_lowercase().nfc().collect();
        format!("{local_part}@{}", self.domain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        Address::parse_address(text).unwrap_or_else(|_| panic!("{text}")).to_canonical_text()
    }

    #[test]
    fn only_plain_addresses_with_a_domain_are_parsed() {
        for (text, sent_to) in [
            ("buyer@example.com", "buyer@example.com"),
            (" Buyer+tag@Example.co.uk ", "Buyer+tag@example.co.uk"),
            ("a.b@x-y.example", "a.b@x-y.example"),
            ("Kunde@bu\u{308}cher.example", "Kunde@xn--bcher-kva.example"),
            ("a@ab--cd.example", "a@ab--cd.example"),
            ("o'neil@example.com", "o'neil@example.com"),
            ("\"a b\"@example.com", "\"a b\"@example.com"),
        ] {
            assert_eq!(Address::parse_address(text).map(|address| address.to_text()), Ok(sent_to.to_owned()), "{text}");
        }
        let (long, label) = (format!("{}@example.com", "a".repeat(65)), format!("a@{}.example", "b".repeat(64)));
        for text in [
            "",
            "buyer",
            "buyer@",
            "@example.com",
            "a b@example.com",
            "a@b",
            "a@@example.com",
            "A <a@example.com>",
            "a@[127.0.0.1]",
            "a@127.0.0.1",
            "a@127.0.0.1@",
            "a@example..com",
            "a@example.com, b@example.com",
            "a@-example.com",
            "a@exa_mple.com",
            "a@xn--a.example",
            "a@\u{200d}.example",
            "a.@example.com",
            "a\u{7}@example.com",
            &long,
            &label,
        ] {
            assert!(Address::parse_address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn spellings_of_one_address_have_one_canonical_form() {
        let expected = "k\u{e4}ufer@xn--bcher-kva.example";
        for text in [
            "K\u{e4}ufer@b\u{fc}cher.example",
            "Ka\u{308}ufer@bu\u{308}cher.example",
            "KA\u{308}UFER@BU\u{308}CHER.EXAMPLE",
            " k\u{e4}ufer@XN--BCHER-KVA.example ",
            "k\u{e4}ufer@b\u{fc}cher\u{3002}example",
            "k\u{e4}ufer@\u{ff42}\u{fc}cher.example",
        ] {
            assert_eq!(canonical(text), expected, "{text}");
        }
        assert_ne!(canonical("kaufer@b\u{fc}cher.example"), expected);
    }
}
