//! `sallyport request`: machines that asked for a certificate and that nobody had announced.

use std::net::IpAddr;
use std::str::FromStr;

use clap::{Args, Subcommand};
use sallyport_proto::v1;
use serde::Serialize;

use super::{Connection, Context, PAGE, names, pages, refused, unix};
use crate::cli::Global;
use crate::error::Result;
use crate::output::{Column, Record, rfc3339};

/// What to do with requests.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
What a request says of itself proves nothing: compare the SHA-256 of its public key with that on the machine before you say yes: there
`sallyport enroll` has printed it, and `sallyport enroll status` does (for other tools: openssl req -in REQUEST -pubkey -noout |
openssl pkey -pubin -outform der | sha256sum). The name in the certificate is the one that you
give.")]
pub(crate) enum Command {
    /// List the requests, the oldest first; each is kept for a week.
    #[command(alias = "ls")]
    List {
        /// Only those that nobody has decided on.
        #[arg(long)]
        waiting: bool,
    },
    /// Say yes: the machine gets a certificate of this name when it asks again.
    Approve {
        /// Number of the request.
        number: u64,
        /// The machine's name in its certificate: a DNS name.
        #[arg(long, value_name = "NAME")]
        name: String,
        /// Further DNS name or IP address in its certificate; may be given several times.
        #[arg(long = "san", value_name = "NAME")]
        sans: Vec<String>,
        /// Whose machine it is.
        #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
        holder: String,
    },
    /// Say no, to one or to many: whoever fills the list up keeps others out for a week.
    #[command(after_help = "\
Examples:
  sallyport request refuse 7
  sallyport request refuse --from 198.51.100.0/24        all that wait and came from there")]
    Refuse(Refuse),
}

/// Which requests are refused.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Refuse {
    /// Numbers of the requests.
    numbers: Vec<u64>,
    /// All that wait and came from this address or network.
    #[arg(long, value_name = "CIDR")]
    from: Option<Network>,
}

/// Addresses with the same first bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u32,
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let wrong = || "an address or a network is expected, such as 198.51.100.0/24 or 2001:db8::/32".to_owned();
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), |bits| bits.parse().map_err(|_| wrong()))?;
        if bits > most { Err(wrong()) } else { Ok(Self { address, bits }) }
    }
}

impl Network {
    fn has(self, source: &str) -> bool {
        // From the left, both kinds of address in as many bits.
        let left = |address: IpAddr| match address {
            IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
            IpAddr::V6(v6) => v6.to_bits(),
        };
        let mask = u128::MAX.checked_shl(128 - self.bits).unwrap_or(0);
        source.parse().is_ok_and(|source: IpAddr| {
            source.is_ipv4() == self.address.is_ipv4() && left(source) & mask == left(self.address) & mask
        })
    }
}

#[derive(Serialize)]
struct Row {
    number: u64,
    state: &'static str,
    claims: String,
    source: String,
    key: &'static str,
    key_sha256: String,
    profile: String,
    asked: String,
    name: String,
    decided_by: String,
    decided: String,
}

impl From<v1::EnrollRequest> for Row {
    fn from(request: v1::EnrollRequest) -> Self {
        Self {
            number: request.number,
            state: names::request_state(request.state()),
            key: names::key_algorithm(request.key_algorithm()),
            key_sha256: crate::hex::lower(&request.key_sha256),
            asked: rfc3339(unix(request.at_unix_ms)),
            decided: rfc3339(unix(request.decided_unix_ms)),
            claims: request.claims,
            source: request.source,
            profile: request.profile,
            name: request.name,
            decided_by: request.decided_by,
        }
    }
}

impl Record for Row {
    const COLUMNS: &'static [Column] = &[
        Column::right("NUMBER"),
        Column::left("STATE"),
        Column::left("CLAIMS TO BE"),
        Column::left("FROM"),
        Column::left("ASKED"),
        Column::left("NAME"),
        Column::left("KEY SHA-256"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.number.to_string(),
            self.state.into(),
            self.claims.clone(),
            self.source.clone(),
            self.asked.clone(),
            self.name.clone(),
            self.key_sha256.clone(),
        ]
    }
}

async fn list(connection: &mut Connection, waiting_only: bool) -> Result<Vec<v1::EnrollRequest>> {
    let client = &mut connection.client;
    pages(async |page_token| {
        let request = v1::ListRequestsRequest { page_size: PAGE, page_token, waiting_only };
        let response = client.list_requests(request).await.map_err(refused)?.into_inner();
        Ok((response.requests, response.next_page_token))
    })
    .await
}

async fn decide(connection: &mut Connection, decision: v1::DecideRequestRequest) -> Result<Row> {
    let answer = connection.client.decide_request(decision).await.map_err(refused)?.into_inner();
    Ok(Row::from(answer.request.unwrap_or_default()))
}

/// Runs the command.
pub(crate) async fn run(command: Command, global: &Global) -> Result {
    let mut context = Context::open(global).await?;
    let connection = &mut context.connection;
    match command {
        Command::List { waiting } => {
            let rows: Vec<Row> = list(connection, waiting).await?.into_iter().map(Row::from).collect();
            context.printer.list(&rows, "no requests")
        }
        Command::Approve { number, name, sans, holder } => {
            let row =
                decide(connection, v1::DecideRequestRequest { number, approve: true, name, sans, holder }).await?;
            let text = format!("request {} gets a certificate of {} when it asks again", row.number, row.name);
            context.printer.one(&row, &text)
        }
        Command::Refuse(Refuse { mut numbers, from }) => {
            if let Some(from) = from {
                let waiting = list(connection, true).await?;
                numbers.extend(waiting.into_iter().filter(|r| from.has(&r.source)).map(|r| r.number));
            }
            let no = |number| v1::DecideRequestRequest { number, ..v1::DecideRequestRequest::default() };
            if let ([number], None) = (numbers.as_slice(), from) {
                let row = decide(connection, no(*number)).await?;
                let text = format!("request {} is refused", row.number);
                return context.printer.one(&row, &text);
            }
            let mut rows = Vec::with_capacity(numbers.len());
            for number in numbers {
                rows.push(decide(connection, no(number)).await?);
            }
            context.printer.list(&rows, "no request waits that came from there")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_its_own_addresses_and_no_others() {
        let network = |text: &str| text.parse::<Network>();
        let has = |of: &str, source: &str| network(of).expect("a network").has(source);
        assert!(has("198.51.100.0/24", "198.51.100.255") && !has("198.51.100.0/24", "198.51.101.0"));
        assert!(has("198.51.100.7", "198.51.100.7") && !has("198.51.100.7", "198.51.100.6"));
        assert!(has("0.0.0.0/0", "192.0.2.1") && !has("0.0.0.0/0", "2001:db8::1"));
        assert!(has("2001:db8::/32", "2001:db8:ffff::1") && !has("2001:db8::/32", "2001:db9::1"));
        assert!(has("::/0", "2001:db8::1") && !has("::/0", "unix"));
        for bad in ["", "198.51.100.0/33", "::/129", "x/8", "198.51.100.0/", "198.51.100.0/-1"] {
            assert!(network(bad).is_err(), "{bad}");
        }
    }
}
