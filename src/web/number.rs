//! Exact decimals as JSON numbers. The digits are written exactly, without a conversion to binary floating point.

use rust_decimal::Decimal;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// A decimal that is serialised as a JSON number without trailing zeros: `0.5`, `5`, `12.34`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number(Decimal);

impl From<Decimal> for Number {
    fn from(decimal: Decimal) -> Number {
        Number(decimal)
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

    #[test]
    fn a_number_has_exactly_the_digits_it_needs() {
        for (decimal, text) in [
            (Decimal::ZERO, "0"),
            (Decimal::new(1, 2), "0.01"),
            (Decimal::new(50, 2), "0.5"),
            (Decimal::new(500, 2), "5"),
            (Decimal::new(1000, 2), "10"),
            (Decimal::new(1234, 2), "12.34"),
            (Decimal::new(i64::MAX, 2), "92233720368547758.07"),
        ] {
            let number = Number::from(decimal);
            assert_eq!(serde_json::to_string(&number).unwrap(), text);
        }
    }
}
