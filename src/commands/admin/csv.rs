//! A parser for CSV (RFC 4180).

/// Returns the fields of each row, with the number of the line, counted from 1, in which the row begins. Empty lines
/// are skipped.
pub fn parse_csv_rows(text: &str) -> Result<Vec<(usize, Vec<String>)>, String> {
    let mut rows = Vec::new();
    let (mut fields, mut field) = (Vec::new(), String::new());
    let (mut line, mut first_line, mut is_quoted, mut was_quoted) = (1, 1, false, false);
    let mut chars = text.trim_start_matches('\u{feff}').chars().peekable();
    while let Some(c) = chars.next() {
        line += usize::from(c == '\n');
        match c {
            '"' if is_quoted && chars.peek() == Some(&'"') => field.extend(chars.next()),
            '"' if is_quoted => is_quoted = false,
            c if is_quoted => field.push(c),
            '"' if field.is_empty() && !was_quoted => (is_quoted, was_quoted) = (true, true),
            '"' => return Err(format!("line {line}: a quotation mark inside an unquoted field")),
            ',' => {
                fields.push(std::mem::take(&mut field));
                was_quoted = false;
            }
            '\r' if chars.peek() == Some(&'\n') => {}
            '\n' => {
                push_finished_row(&mut rows, first_line, &mut fields, &mut field, was_quoted);
                (first_line, was_quoted) = (line, false);
            }
            c if was_quoted => return Err(format!("line {line}: `{c}` follows a closing quotation mark")),
            c => field.push(c),
        }
    }
    if is_quoted {
        return Err(format!("line {first_line}: a quotation mark is not closed"));
    }
    push_finished_row(&mut rows, first_line, &mut fields, &mut field, was_quoted);
    Ok(rows)
}

/// Appends the current row to `rows` and clears `fields` and `field`. A row without fields is skipped.
fn push_finished_row(
    rows: &mut Vec<(usize, Vec<String>)>,
    first_line: usize,
    fields: &mut Vec<String>,
    field: &mut String,
    was_quoted: bool,
) {
    if !fields.is_empty() || !field.is_empty() || was_quoted {
        fields.push(std::mem::take(field));
        rows.push((first_line, std::mem::take(fields)));
    }
}

#[cfg(test)]
mod tests {
    use super::parse_csv_rows;

    #[test]
    fn csv_files_of_spreadsheets_are_parsed() {
        let text = "\u{feff}slug,name\r\na,\"Say \"\"hi\"\",\nthen go\"\r\n\r\nb,\n\"\",last";
        let parsed: Vec<(usize, Vec<String>)> = parse_csv_rows(text).unwrap();
        let expected = [
            (1, vec!["slug", "name"]),
            (2, vec!["a", "Say \"hi\",\nthen go"]),
            (5, vec!["b", ""]),
            (6, vec!["", "last"]),
        ];
        assert_eq!(parsed, expected.map(|(line, fields)| (line, fields.into_iter().map(String::from).collect())));
    }

    #[test]
    fn malformed_csv_is_rejected() {
        for text in ["a\"b", "\"never closed", "\"a\"b,c"] {
            assert!(parse_csv_rows(text).is_err(), "{text}");
        }
    }
}
