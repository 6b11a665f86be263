//! The values of statements and rows: integers, texts and bytes, the same on both databases.

use std::fmt;
use std::sync::Arc;

use chain::Amount;

use crate::Error;
use clock::Instant;

/// A value of a statement or a row. To store its own type, a feature implements `From<TheType> for Bind` and
/// [`FromValue`].
#[derive(Clone, PartialEq, Eq)]
pub enum Bind {
    /// No value: SQL `null`.
    Null,
    /// An integer, in a column of type BIGINT.
    Int(i64),
    /// A text, in a column of type TEXT.
    Text(String),
    /// Bytes, in a column of type BLOB on SQLite and BYTEA on PostgreSQL.
    Blob(Vec<u8>),
    /// An unsigned integer above `i64::MAX`, which no column can hold: a statement that binds it fails.
    TooLarge(u64),
    /// The id that an earlier queued statement of the transaction returns; the field is the index of that statement in
    /// the transaction, from 0. Only queued statements may bind this value.
    ResultRef(usize),
}

/// A value in a row. A row never contains `TooLarge` or `ResultRef`.
pub type Value = Bind;

impl Bind {
    /// Returns the type of the value in words, for messages, without the value.
    pub fn kind(&self) -> &'static str {
        match self {
            Bind::Null => "null",
            Bind::Int(_) => "an integer",
            Bind::Text(_) => "text",
            Bind::Blob(_) => "bytes",
            Bind::TooLarge(_) => "an integer above 2^63",
            Bind::ResultRef(_) => "a reference to the result of a statement",
        }
    }

    /// Returns the text, or `None` for a value of another type.
    pub fn as_text(&self) -> Option<&str> {
        if let Bind::Text(text) = self { Some(text) } else { None }
    }

    /// Returns the bytes, or `None` for a value of another type.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        if let Bind::Blob(bytes) = self { Some(bytes) } else { None }
    }
}

impl From<i64> for Bind {
    fn from(value: i64) -> Bind {
        Bind::Int(value)
    }
}

impl From<u64> for Bind {
    fn from(value: u64) -> Bind {
        i64::try_from(value).map_or(Bind::TooLarge(value), Bind::Int)
    }
}

macro_rules! small_integers {
    ($($integer:ty),*) => {$(
        impl From<$integer> for Bind {
            fn from(value: $integer) -> Bind {
                Bind::Int(i64::from(value))
            }
        }
        impl FromValue for $integer {
            fn from_value(value: &Value) -> Option<$integer> {
                i64::from_value(value)?.try_into().ok()
            }
        }
    )*};
}
small_integers!(u8, u16, u32, i32);

impl From<bool> for Bind {
    fn from(value: bool) -> Bind {
        Bind::Int(i64::from(value))
    }
}

impl From<&str> for Bind {
    fn from(value: &str) -> Bind {
        Bind::Text(value.to_owned())
    }
}

impl From<String> for Bind {
    fn from(value: String) -> Bind {
        Bind::Text(value)
    }
}

impl From<&String> for Bind {
    fn from(value: &String) -> Bind {
        Bind::Text(value.clone())
    }
}

impl From<Vec<u8>> for Bind {
    fn from(value: Vec<u8>) -> Bind {
        Bind::Blob(value)
    }
}

impl From<&Vec<u8>> for Bind {
    fn from(value: &Vec<u8>) -> Bind {
        Bind::Blob(value.clone())
    }
}

impl From<&[u8]> for Bind {
    fn from(value: &[u8]) -> Bind {
        Bind::Blob(value.to_vec())
    }
}

impl<const N: usize> From<[u8; N]> for Bind {
    fn from(value: [u8; N]) -> Bind {
        Bind::Blob(value.to_vec())
    }
}

impl<const N: usize> From<&[u8; N]> for Bind {
    fn from(value: &[u8; N]) -> Bind {
        Bind::Blob(value.to_vec())
    }
}

/// An amount is stored as 32 bytes, the most significant byte first, so that both databases sort amounts by their size.
impl From<Amount> for Bind {
    fn from(value: Amount) -> Bind {
        Bind::from(value.to_be_bytes())
    }
}

impl From<&Amount> for Bind {
    fn from(value: &Amount) -> Bind {
        Bind::from(*value)
    }
}

impl From<Instant> for Bind {
    fn from(value: Instant) -> Bind {
        Bind::Int(value.0)
    }
}

impl<T: Into<Bind>> From<Option<T>> for Bind {
    fn from(value: Option<T>) -> Bind {
        value.map_or(Bind::Null, T::into)
    }
}

/// `Debug` writes the type of the value but not the value, which may be a secret or an e-mail address.
impl fmt::Debug for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())
    }
}

/// A type that can be read from a row.
pub trait FromValue: Sized {
    /// Converts the value to this type, or returns `None` when the type cannot represent the value.
    fn from_value(value: &Value) -> Option<Self>;
}

impl FromValue for i64 {
    fn from_value(value: &Value) -> Option<i64> {
        if let Bind::Int(value) = value { Some(*value) } else { None }
    }
}

impl FromValue for u64 {
    fn from_value(value: &Value) -> Option<u64> {
        i64::from_value(value)?.try_into().ok()
    }
}

impl FromValue for bool {
    fn from_value(value: &Value) -> Option<bool> {
        match i64::from_value(value)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl FromValue for Instant {
    fn from_value(value: &Value) -> Option<Instant> {
        i64::from_value(value).map(Instant)
    }
}

impl FromValue for String {
    fn from_value(value: &Value) -> Option<String> {
        value.as_text().map(str::to_owned)
    }
}

impl FromValue for Vec<u8> {
    fn from_value(value: &Value) -> Option<Vec<u8>> {
        value.as_bytes().map(<[u8]>::to_vec)
    }
}

impl<const N: usize> FromValue for [u8; N] {
    fn from_value(value: &Value) -> Option<[u8; N]> {
        value.as_bytes()?.try_into().ok()
    }
}

impl FromValue for Amount {
    fn from_value(value: &Value) -> Option<Amount> {
        Amount::from_be_slice(value.as_bytes()?)
    }
}

impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: &Value) -> Option<Option<T>> {
        if matches!(value, Bind::Null) { Some(None) } else { T::from_value(value).map(Some) }
    }
}

/// A row that a statement returned. It may be used after its transaction.
#[derive(Debug)]
pub struct Row {
    columns: Arc<[Box<str>]>,
    values: Box<[Bind]>,
}

impl Row {
    pub(super) fn new(columns: Arc<[Box<str>]>, values: Box<[Bind]>) -> Row {
        Row { columns, values }
    }

    /// Returns the value of the named column.
    ///
    /// # Errors
    /// [`Error::Value`] when there is no such column, or when its value cannot be converted to `T`.
    pub fn get<T: FromValue>(&self, column: &str) -> Result<T, Error> {
        let index = self.columns.iter().position(|name| **name == *column);
        self.convert_column(index, || column.to_owned())
    }

    /// Returns the value of the column with this index, from 0.
    ///
    /// # Errors
    /// [`Error::Value`] when there is no such column, or when `T` has no such value.
    pub fn get_at<T: FromValue>(&self, index: usize) -> Result<T, Error> {
        self.convert_column(Some(index), || {
            self.columns.get(index).map_or_else(|| index.to_string(), ToString::to_string)
        })
    }

    fn convert_column<T: FromValue>(&self, index: Option<usize>, column: impl Fn() -> String) -> Result<T, Error> {
        let invalid = |reason| Error::Value { column: column(), reason };
        let value =
            index.and_then(|index| self.values.get(index)).ok_or_else(|| invalid("there is no such column".into()))?;
        let mismatch = || format!("{} is not a value of {}", value.kind(), std::any::type_name::<T>());
        T::from_value(value).ok_or_else(|| invalid(mismatch()))
    }
}
