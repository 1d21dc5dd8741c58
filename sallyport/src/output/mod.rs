//! What a command prints: an aligned table for people or JSON for programs, from the same records.

mod moment;
mod table;

use std::io::{IsTerminal, Write};

use clap::ValueEnum;
use serde::Serialize;

pub(crate) use moment::{age, rfc3339};
pub(crate) use table::{Column, Table};

use crate::error::Result;

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns with a heading.
    #[default]
    Table,
    /// JSON: an array for a list, an object for one thing.
    Json,
}

/// One kind of thing that can be listed.
pub(crate) trait Record: Serialize {
    /// The headings, in order.
    const COLUMNS: &'static [Column];
    /// One cell for each heading.
    fn cells(&self) -> Vec<String>;
}

/// Prints results in the format that the user asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Printer {
    format: Format,
}

impl Printer {
    /// A printer to standard output.
    pub(crate) const fn new(format: Format) -> Self {
        Self { format }
    }

    /// Prints a list; `none` is said in place of an empty table.
    pub(crate) fn list<R: Record>(&self, records: &[R], none: &str) -> Result {
        self.write(&self.render_list(records, none))
    }

    /// The text that [`Self::list`] prints.
    pub(crate) fn render_list<R: Record>(&self, records: &[R], none: &str) -> String {
        match self.format {
            Format::Json => json(&records),
            Format::Table if records.is_empty() => format!("{none}\n"),
            Format::Table => {
                let mut table = Table::new(R::COLUMNS);
                for record in records {
                    table.row(record.cells());
                }
                table.render()
            }
        }
    }

    /// Adds a line or more for people below a table; programs find the same in the records.
    pub(crate) fn remark(&self, text: &str) -> Result {
        match self.format {
            Format::Json => Ok(()),
            Format::Table => self.write(&format!("\n{text}\n")),
        }
    }

    /// Prints one thing: `text` for people, `value` for programs.
    pub(crate) fn one<T: Serialize>(&self, value: &T, text: &str) -> Result {
        match self.format {
            Format::Json => self.write(&json(value)),
            Format::Table => self.write(&format!("{}\n", text.trim_end_matches('\n'))),
        }
    }

    fn write(&self, text: &str) -> Result {
        print(text)
    }
}

/// Writes `text` to standard output as it is.
pub(crate) fn print(text: &str) -> Result {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

/// Whether to colour standard output: a terminal, and no wish to the contrary (<https://no-color.org>).
pub(crate) fn colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

fn json<T: Serialize>(value: &T) -> String {
    // Our records are plain structures with string keys; serialising them cannot fail.
    let mut text = serde_json::to_string_pretty(value).unwrap_or_else(|e| format!("{{\"error\": \"{e}\"}}"));
    text.push('\n');
    text
}

/// Text from elsewhere, safe for one line of a terminal: control characters are written out, so that a name
/// that a peer chose can neither break a table nor drive the operator's terminal.
pub(crate) fn one_line(text: &str) -> String {
    let unsafe_char = |c: char| {
        c.is_control()
            || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.chars().any(unsafe_char) {
        return text.to_owned();
    }
    text.chars().fold(String::with_capacity(text.len() + 8), |mut line, c| {
        if unsafe_char(c) {
            line.extend(c.escape_default())
        } else {
            line.push(c)
        }
        line
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Fruit {
        name: &'static str,
        grams: u32,
    }

    impl Record for Fruit {
        const COLUMNS: &'static [Column] = &[Column::left("NAME"), Column::right("GRAMS")];
        fn cells(&self) -> Vec<String> {
            vec![self.name.into(), self.grams.to_string()]
        }
    }

    #[test]
    fn the_same_records_make_a_table_and_json() {
        let fruit = [Fruit { name: "fig", grams: 50 }, Fruit { name: "melon", grams: 1500 }];
        let table = Printer::new(Format::Table).render_list(&fruit, "no fruit");
        assert_eq!(table, "NAME   GRAMS\nfig       50\nmelon   1500\n");
        let json: serde_json::Value =
            serde_json::from_str(&Printer::new(Format::Json).render_list(&fruit, "no fruit")).unwrap();
        assert_eq!(json, serde_json::json!([{"name": "fig", "grams": 50}, {"name": "melon", "grams": 1500}]));
    }

    #[test]
    fn an_empty_list_says_so_to_people_and_is_an_empty_array_for_programs() {
        assert_eq!(Printer::new(Format::Table).render_list::<Fruit>(&[], "no fruit"), "no fruit\n");
        assert_eq!(Printer::new(Format::Json).render_list::<Fruit>(&[], "no fruit"), "[]\n");
    }

    #[test]
    fn control_characters_are_written_out() {
        assert_eq!(one_line("plain é 漢"), "plain é 漢");
        assert_eq!(one_line("a\u{1b}[31mb\r\n\u{202e}"), "a\\u{1b}[31mb\\r\\n\\u{202e}");
    }
}
