//! Columns that line up. Pure.

/// Rows under a heading, each column as wide as its widest cell, two spaces between.
pub fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(heading.get(column).map(|cell| cell.chars().count())).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let heading: Vec<String> = heading.iter().map(|cell| (*cell).to_owned()).collect();
    let mut lines = vec![line(&heading)];
    lines.extend(rows.iter().map(|row| line(row)));
    lines.join("\n")
}

/// Names and values, one a line, the values below each other.
pub fn page(fields: &[(&str, String)]) -> String {
    let width = fields.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    let lines = fields.iter().map(|(name, value)| {
        let indent = format!("\n{}", " ".repeat(width + 2));
        format!("{name:<width$}  {}", value.replace('\n', &indent)).trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_whatever_letters_are_in_them() {
        let rows = [vec!["å".to_owned(), "1".to_owned()], vec!["adalind".to_owned(), String::new()]];

        assert_eq!(table(&["TENANT", "N"], &rows), "TENANT   N\nå        1\nadalind");
    }

    #[test]
    fn a_value_of_several_lines_stays_in_its_column() {
        let fields = [("backup", "one\ntwo".to_owned()), ("key", "three".to_owned())];

        assert_eq!(page(&fields), "backup  one\n        two\nkey     three");
    }
}
