//! The macro for enums that the database stores as text.

/// Stores an enum as text. `text_enum!(State { Seen => "seen", Final => "final" })` implements `as_str` and the
/// conversions to and from a value.
#[macro_export]
macro_rules! text_enum {
    ($name:ident { $($variant:ident => $text:literal),+ $(,)? }) => {
        impl $name {
            /// Returns the text under which the variant is stored.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $($name::$variant => $text,)+
                }
            }
        }

        impl From<$name> for $crate::Bind {
            fn from(value: $name) -> $crate::Bind {
                $crate::Bind::from(value.as_str())
            }
        }

        impl $crate::FromValue for $name {
            fn from_value(value: &$crate::Value) -> Option<$name> {
                match value.as_text()? {
                    $($text => Some($name::$variant),)+
                    _ => None,
                }
            }
        }
    };
}
