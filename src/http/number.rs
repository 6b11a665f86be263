//! Exact decimals as JSON numbers: written as digits, never by way of a binary fraction.

use rust_decimal::Decimal;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::money::pricing::Fiat;

/// `0.5`, `5`, `12.34`: no more digits than needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number(Decimal);

impl From<Fiat> for Number {
    fn from(fiat: Fiat) -> Number {
        Number(fiat.to_decimal())
    }
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let digits = RawValue::from_string(self.0.normalize().to_string()).map_err(serde::ser::Error::custom)?;
        digits.serialize(serializer)
    }
}

impl PartialSchema for Number {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::Number).description(Some("Exact decimal number")).into()
    }
}

impl ToSchema for Number {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::pricing::Currency;

    #[test]
    fn digits_are_exact_and_few() {
        for (minor, text) in [
            (0, "0"),
            (1, "0.01"),
            (50, "0.5"),
            (500, "5"),
            (1000, "10"),
            (1234, "12.34"),
            (i64::MAX, "92233720368547758.07"),
        ] {
            let number = Number::from(Fiat::new(Currency::CNY, minor));
            assert_eq!(serde_json::to_string(&number).unwrap(), text);
        }
    }
}
