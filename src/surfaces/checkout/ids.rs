//! Parses the ids in requests to this surface. Each id is a UUID with hyphens.

use uuid::Uuid;

/// Parses a UUID with hyphens, in upper or lower case. Returns `None` for every other text, and also for the other UUID
/// formats that the crate `uuid` accepts.
pub fn parse_hyphenated_uuid(text: &str) -> Option<Uuid> {
    if text.len() == 36 { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_spelling_with_hyphens_is_an_id() {
        assert!(parse_hyphenated_uuid("30a6d792-9e06-4023-85f4-736dfd9af07d").is_some());
        assert!(parse_hyphenated_uuid("30A6D792-9E06-4023-85F4-736DFD9AF07D").is_some());
        for text in [
            "",
            "mailbox-usa-fresh",
            "30a6d7929e06402385f4736dfd9af07d",
            "{30a6d792-9e06-4023-85f4-736dfd9af07d}",
            "\u{0}",
        ] {
            assert_eq!(parse_hyphenated_uuid(text), None, "{text}");
        }
    }
}
