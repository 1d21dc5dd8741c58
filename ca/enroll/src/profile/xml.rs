//! The little of Apple's property lists that a profile needs.

use std::fmt::Write as _;

use base64ct::{Base64, Encoding as _};
use zeroize::Zeroizing;

/// A value.
pub(super) enum Value<'a> {
    Text(&'a str),
    Number(i64),
    No,
    Data(&'a [u8]),
    List(Vec<Self>),
    Dict(Vec<(&'static str, Self)>),
}

/// A whole document. It is wiped when it is dropped: there may be a password in it.
pub(super) fn plist(value: &Value<'_>) -> Zeroizing<String> {
    // Room for all of it at once: a reallocation would leave a copy behind.
    let mut out = Zeroizing::new(String::with_capacity(1024 + 2 * size(value)));
    out.push_str(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \
         \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n<plist version=\"1.0\">\n",
    );
    write(&mut out, value, 0);
    out.push_str("</plist>\n");
    out
}

fn size(value: &Value<'_>) -> usize {
    64 + match value {
        Value::Text(text) => 6 * text.len(),
        Value::Data(data) => 2 * data.len(),
        Value::List(list) => list.iter().map(size).sum(),
        Value::Dict(dict) => dict.iter().map(|(key, value)| key.len() + 32 + size(value)).sum(),
        _ => 0,
    }
}

fn write(out: &mut String, value: &Value<'_>, depth: usize) {
    let indent = "  ".repeat(depth);
    // Writing to a String cannot fail.
    let _ = match value {
        Value::Text(text) => {
            let _ = write!(out, "{indent}<string>");
            escape(out, text);
            writeln!(out, "</string>")
        }
        Value::Number(number) => writeln!(out, "{indent}<integer>{number}</integer>"),
        Value::No => writeln!(out, "{indent}<false/>"),
        Value::Data(data) => {
            let text = Zeroizing::new(Base64::encode_string(data));
            let _ = writeln!(out, "{indent}<data>");
            for line in text.as_bytes().chunks(76) {
                let _ = writeln!(out, "{}", String::from_utf8_lossy(line));
            }
            writeln!(out, "{indent}</data>")
        }
        Value::List(list) => {
            let _ = writeln!(out, "{indent}<array>");
            list.iter().for_each(|item| write(out, item, depth + 1));
            writeln!(out, "{indent}</array>")
        }
        Value::Dict(dict) => {
            let _ = writeln!(out, "{indent}<dict>");
            for (key, value) in dict {
                let _ = writeln!(out, "{indent}  <key>{key}</key>");
                write(out, value, depth + 1);
            }
            writeln!(out, "{indent}</dict>")
        }
    };
}

/// Character data of XML 1.0: what may not stand in it at all is left out.
fn escape(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\t' | '\n' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => {}
            c => out.push(c),
        }
    }
}
