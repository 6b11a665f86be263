//! Language tags of product texts, such as `en` or `zh-CN`. This file uses no database.

/// The maximum length of a language tag, in bytes, as in BCP 47.
const TAG_LENGTH_MAX: usize = 35;

/// Returns the canonical form of a language tag such as `zh_cn`, here `zh-CN`: subtags are separated by hyphens, the
/// language is in lower case, a script of four letters is capitalised, and a region of two letters is in upper case.
/// Returns `None` when the text is not a language tag.
pub fn normalize_language_tag(text: &str) -> Option<String> {
    let mut subtags = text.split(['-', '_']);
    let language = subtags.next().filter(|first| (2..=8).contains(&first.len()))?;
    if text.len() > TAG_LENGTH_MAX || !language.bytes().all(|b| b.is_ascii_alphabetic()) {
        return None;
    }
    let mut tag = language.to_ascii_lowercase();
    for subtag in subtags {
        if !(1..=8).contains(&subtag.len()) || !subtag.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return None;
        }
        let lower = subtag.to_ascii_lowercase();
        tag.push('-');
        match lower.len() {
            2 => tag.push_str(&lower.to_ascii_uppercase()),
            4 if lower.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                tag.push_str(&lower[..1].to_ascii_uppercase());
                tag.push_str(&lower[1..]);
            }
            _ => tag.push_str(&lower),
        }
    }
    Some(tag)
}

/// Returns true when `tag` is a variant of the language tag `language`: `zh-CN` is a variant of `zh`.
pub fn is_variant_of(tag: &str, language: &str) -> bool {
    tag.strip_prefix(language).is_some_and(|rest| rest.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use super::{is_variant_of, normalize_language_tag};

    #[test]
    fn language_tags_get_one_spelling() {
        let cases = [
            ("en", "en"),
            ("ZH", "zh"),
            ("zh_cn", "zh-CN"),
            ("ZH-HANS-cn", "zh-Hans-CN"),
            ("es-419", "es-419"),
            ("de-1996", "de-1996"),
        ];
        for (text, tag) in cases {
            assert_eq!(normalize_language_tag(text).as_deref(), Some(tag), "{text}");
        }
        for text in ["", "e", "中文", "zh-", "-CN", "zh--CN", "english language", "e1", "zh-abcdefghi"] {
            assert_eq!(normalize_language_tag(text), None, "{text}");
        }
        assert!(is_variant_of("zh-CN", "zh") && !is_variant_of("zh", "zh") && !is_variant_of("zho-CN", "zh"));
    }
}
