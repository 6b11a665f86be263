//! Generates the table of currencies from list one of ISO 4217.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Context, ensure};

/// The number of currencies in one line of the generated table.
const PER_LINE: usize = 6;

/// Returns the source file `src/money/pricing/minor_units.rs` for the text of `list-one.xml`.
pub fn generate_minor_units_source(xml: &str) -> anyhow::Result<String> {
    let published = text_between(xml, "Pblshd=\"", "\"").context("the list has no date of publication")?;
    let mut decimals_by_code = BTreeMap::new();
    for entry in xml.split("<CcyNtry>").skip(1) {
        let code = text_between(entry, "<Ccy>", "</Ccy>");
        let decimals = text_between(entry, "<CcyMnrUnts>", "</CcyMnrUnts>");
        // Countries without a currency have no code; precious metals have no number of minor units.
        if let (Some(code), Some(decimals)) = (code, decimals.and_then(|decimals| decimals.parse::<u8>().ok())) {
            ensure!(code.len() == 3, "`{code}` is not a currency code");
            decimals_by_code.insert(code, decimals);
        }
    }
    ensure!(!decimals_by_code.is_empty(), "the list has no currency");
    let mut source = format!(
        "//! The currencies of ISO 4217 with the number of their decimal places. `cargo xtask currencies LIST_ONE` generated this file
//! from list one of the standard, published on {published}.

/// The codes of all currencies with minor units, in alphabetical order, each with its number of decimal places.
/// Precious metals, units of account and codes for tests have no minor units and are left out.
#[rustfmt::skip]
pub const DECIMALS_BY_CODE: [([u8; 3], u8); {}] = [
",
        decimals_by_code.len()
    );
    let entries: Vec<_> = decimals_by_code.into_iter().collect();
    for line in entries.chunks(PER_LINE) {
        source += "   ";
        for (code, decimals) in line {
            write!(source, " (*b\"{code}\", {decimals}),")?;
        }
        source += "\n";
    }
    source += "];\n";
    Ok(source)
}

fn text_between<'t>(text: &'t str, start: &str, end: &str) -> Option<&'t str> {
    text.split_once(start)?.1.split_once(end).map(|(found, _)| found)
}
