//! Aligned columns.

use super::one_line;

/// Where a cell's text stands in its column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A heading and the alignment of what stands below it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    title: &'static str,
    align: Align,
}

impl Column {
    /// A column of words.
    pub(crate) const fn left(title: &'static str) -> Self {
        Self { title, align: Align::Left }
    }

    /// A column of numbers.
    pub(crate) const fn right(title: &'static str) -> Self {
        Self { title, align: Align::Right }
    }
}

/// Spaces between two columns.
const GAP: usize = 2;

/// A heading and rows. Every column is as wide as its widest cell; the last one is not padded.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub(crate) fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row. Missing cells are empty, an empty cell is shown as `-`, and cells beyond the last column are
    /// dropped.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut cells: Vec<String> = cells.into_iter().take(self.columns.len()).map(|c| one_line(&c)).collect();
        cells.resize(self.columns.len(), String::new());
        for cell in &mut cells {
            if cell.is_empty() {
                cell.push('-');
            }
        }
        self.rows.push(cells);
    }

    /// The whole text, each line ended by a newline and free of trailing spaces.
    pub(crate) fn render(&self) -> String {
        let widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(i, column)| self.rows.iter().map(|r| width(&r[i])).fold(width(column.title), usize::max))
            .collect();
        let mut text = String::new();
        self.line(&mut text, &widths, self.columns.iter().map(|c| c.title));
        for row in &self.rows {
            self.line(&mut text, &widths, row.iter().map(String::as_str));
        }
        text
    }

    fn line<'a>(&self, text: &mut String, widths: &[usize], cells: impl Iterator<Item = &'a str>) {
        let start = text.len();
        for (i, ((cell, column), width_of_column)) in cells.zip(&self.columns).zip(widths).enumerate() {
            if i > 0 {
                text.extend(std::iter::repeat_n(' ', GAP));
            }
            let padding = std::iter::repeat_n(' ', width_of_column.saturating_sub(width(cell)));
            match column.align {
                Align::Left => {
                    text.push_str(cell);
                    text.extend(padding);
                }
                Align::Right => {
                    text.extend(padding);
                    text.push_str(cell);
                }
            }
        }
        text.truncate(start + text[start..].trim_end_matches(' ').len());
        text.push('\n');
    }
}

/// Terminal columns of `text`: two for the wide East Asian blocks, none for combining marks, one for the rest.
fn width(text: &str) -> usize {
    text.chars()
        .map(|c| match u32::from(c) {
            0x0300..=0x036f | 0x200b..=0x200d | 0xfe00..=0xfe0f => 0,
            0x1100..=0x115f
            | 0x2e80..=0xa4cf
            | 0xac00..=0xd7a3
            | 0xf900..=0xfaff
            | 0xfe30..=0xfe6f
            | 0xff00..=0xff60
            | 0xffe0..=0xffe6
            | 0x1f300..=0x1faff
            | 0x20000..=0x3fffd => 2,
            _ => 1,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const COLUMNS: &[Column] = &[Column::left("NAME"), Column::right("COUNT"), Column::left("NOTE")];

    fn table(rows: &[[&str; 3]]) -> String {
        let mut table = Table::new(COLUMNS);
        for row in rows {
            table.row(row.iter().map(|c| (*c).to_owned()));
        }
        table.render()
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        assert_eq!(
            table(&[["a", "1", "first"], ["longer name", "12345678", "b"]]),
            "NAME            COUNT  NOTE\na                   1  first\nlonger name  12345678  b\n"
        );
    }

    #[test]
    fn a_heading_can_be_the_widest() {
        assert_eq!(table(&[["a", "1", "x"]]), "NAME  COUNT  NOTE\na         1  x\n");
    }

    #[test]
    fn an_empty_cell_is_a_dash_and_lines_have_no_trailing_spaces() {
        assert_eq!(table(&[["", "", ""]]), "NAME  COUNT  NOTE\n-         -  -\n");
    }

    #[test]
    fn wide_and_combining_characters_keep_the_columns_straight() {
        assert_eq!(
            table(&[["漢字", "1", "x"], ["e\u{301}", "2", "y"]]),
            "NAME  COUNT  NOTE\n漢字      1  x\ne\u{301}         2  y\n"
        );
    }

    #[test]
    fn a_cell_cannot_start_a_line_or_an_escape_sequence() {
        assert_eq!(table(&[["a\nb", "1", "\u{1b}[2J"]]), "NAME  COUNT  NOTE\na\\nb      1  \\u{1b}[2J\n");
    }

    #[test]
    fn rows_of_the_wrong_length_are_padded_or_cut() {
        let mut table = Table::new(COLUMNS);
        table.row(vec!["one".to_owned()]);
        table.row(["1", "2", "3", "4"].map(str::to_owned));
        assert_eq!(table.render(), "NAME  COUNT  NOTE\none       -  -\n1         2  3\n");
    }

    proptest! {
        #[test]
        fn every_row_is_one_line(cells in proptest::collection::vec(proptest::array::uniform3(any::<String>()), 0..20)) {
            let rows: Vec<[&str; 3]> = cells.iter().map(|c| [c[0].as_str(), c[1].as_str(), c[2].as_str()]).collect();
            let text = table(&rows);
            prop_assert_eq!(text.lines().count(), rows.len() + 1);
            prop_assert!(text.lines().all(|l| !l.ends_with(' ')));
        }
    }
}
