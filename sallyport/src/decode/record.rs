//! What is said about one message, and where it was found.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use crate::output::one_line;

/// One end of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum End {
    /// The link says nothing about it.
    #[default]
    Unknown,
    /// The host that captured a PPP link.
    Local,
    /// The other end of a captured PPP link.
    Peer,
    /// An Ethernet address.
    Mac([u8; 6]),
    /// An IP address.
    Ip(IpAddr),
    /// An IP address and a UDP or TCP port.
    Socket(SocketAddr),
}

impl End {
    /// The IP address, if there is one.
    pub(super) const fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip) => Some(ip),
            Self::Socket(socket) => Some(socket.ip()),
            _ => None,
        }
    }

    /// The same address with a port.
    pub(super) fn with_port(self, port: u16) -> Self {
        self.ip().map_or(self, |ip| Self::Socket(SocketAddr::new(ip, port)))
    }
}

impl core::fmt::Display for End {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Unknown => f.write_str("-"),
            Self::Local => f.write_str("local"),
            Self::Peer => f.write_str("peer"),
            Self::Mac([a, b, c, d, e, g]) => write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}"),
            Self::Ip(ip) => ip.fmt(f),
            Self::Socket(socket) => socket.fmt(f),
        }
    }
}

/// Where in a capture some bytes were found, and in what they were wrapped.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    /// Number of the frame, from 1.
    pub(super) frame: u64,
    /// Nanoseconds since 1970.
    pub(super) time: Option<u64>,
    pub(super) source: End,
    pub(super) destination: End,
    /// How many wrappings of IP, PPP and Ethernet were taken off.
    pub(super) depth: usize,
    /// The capture kept less than was sent: how much there is and how much there was, in bytes of the frame.
    pub(super) cut: Option<(usize, usize)>,
    /// Short texts of the tunnels around the message, outermost first: `L2TP 5/7`.
    pub(super) inside: Vec<String>,
    /// The fields of these tunnels, for JSON.
    pub(super) around: Map<String, Value>,
}

impl Place {
    /// The same place inside a tunnel.
    pub(super) fn within(&self, name: &str, text: Option<String>, fields: Value) -> Self {
        let mut inner = self.clone();
        inner.inside.extend(text);
        inner.around.insert(name.to_owned(), fields);
        inner
    }
}

/// One message.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) place: Place,
    /// Short name of the protocol, such as `IKEv1`, `ESP` or `LCP`.
    pub(super) protocol: &'static str,
    /// The message in a line.
    pub(super) summary: String,
    /// Why it cannot be read, if so.
    pub(super) malformed: Option<String>,
    /// All that was read, for JSON.
    pub(super) fields: Value,
}

/// How times are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Clock {
    /// Seconds since the first frame.
    #[default]
    Relative,
    /// Date and time in UTC.
    Utc,
}

/// Turns records into lines. The columns grow with what they have to hold.
#[derive(Debug)]
pub(super) struct Printer {
    json: bool,
    clock: Clock,
    /// Name of the file, if there are several.
    file: Option<String>,
    first: Option<u64>,
    widths: [usize; 4],
}

impl Printer {
    pub(super) fn new(json: bool, clock: Clock, file: Option<String>) -> Self {
        Self { json, clock, file, first: None, widths: [4, 0, 0, 6] }
    }

    /// Says when a frame was captured: the first one is the zero of relative times.
    pub(super) fn note_time(&mut self, time: Option<u64>) {
        self.first = self.first.or(time);
    }

    /// The line of a record, with its end.
    pub(super) fn line(&mut self, record: &Record) -> String {
        if self.json { self.json_line(record) } else { self.text_line(record) }
    }

    fn json_line(&self, record: &Record) -> String {
        let place = &record.place;
        let mut object = Map::new();
        let mut put = |name: &str, value: Value| object.insert(name.to_owned(), value);
        if let Some(file) = &self.file {
            put("file", json!(file));
        }
        put("frame", json!(place.frame));
        put("time", place.time.and_then(utc).map_or(Value::Null, Value::from));
        put("seconds", self.relative(place.time).map_or(Value::Null, |nanos| json!(nanos as f64 / 1e9)));
        put("source", json!(place.source.to_string()));
        put("destination", json!(place.destination.to_string()));
        put("protocol", json!(record.protocol));
        put("summary", json!(one_line(&record.summary)));
        if let Some(why) = &record.malformed {
            put("malformed", json!(why));
        }
        if !place.around.is_empty() {
            put("inside", Value::Object(place.around.clone()));
        }
        put("message", record.fields.clone());
        let mut line = Value::Object(object).to_string();
        line.push('\n');
        line
    }

    fn text_line(&mut self, record: &Record) -> String {
        let place = &record.place;
        let time = match self.clock {
            Clock::Utc => place.time.and_then(utc),
            Clock::Relative => self.relative(place.time).map(|nanos| {
                let micros = nanos.unsigned_abs().div_ceil(1000);
                let sign = if nanos < 0 { "-" } else { "" };
                format!("{sign}{}.{:06}", micros / 1_000_000, micros % 1_000_000)
            }),
        };
        let time = time.unwrap_or_else(|| "-".to_owned());
        let summary = match &record.malformed {
            Some(why) if record.summary.is_empty() => format!("malformed: {why}"),
            Some(why) => format!("malformed: {why} ({})", record.summary),
            None => record.summary.clone(),
        };
        let ends = format!("{} → {}", place.source, place.destination);
        let frame = place.frame.to_string();
        for (width, text) in self.widths.iter_mut().zip([&frame, &time, &ends, &record.protocol.to_owned()]) {
            // A column that one odd line made wide would be empty in all others.
            *width = (*width).max(text.chars().count().min(64));
        }
        let [w_frame, w_time, w_ends, w_protocol] = self.widths;
        let mut line = String::new();
        // Writing to a String cannot fail.
        let _ = write!(line, "{frame:>w_frame$}  {time:>w_time$}  {ends:<w_ends$}  {:<w_protocol$}  ", record.protocol);
        line.push_str(&one_line(&summary));
        if !place.inside.is_empty() {
            let _ = write!(line, "  [in {}]", one_line(&place.inside.join(", ")));
        }
        if let Some(file) = &self.file {
            line.insert_str(0, &format!("{}: ", one_line(file)));
        }
        line.push('\n');
        line
    }

    fn relative(&self, time: Option<u64>) -> Option<i64> {
        let (time, first) = (time?, self.first?);
        i64::try_from(i128::from(time) - i128::from(first)).ok()
    }
}

/// Date and time with microseconds.
fn utc(nanos: u64) -> Option<String> {
    let t = OffsetDateTime::from_unix_timestamp_nanos(i128::from(nanos)).ok()?;
    let (hour, minute, second, micro) = t.time().as_hms_micro();
    let month = u8::from(t.month());
    Some(format!("{:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}.{micro:06}Z", t.year(), t.day()))
}
