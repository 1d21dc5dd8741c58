//! `sallyport request`: machines that asked for a certificate and that nobody had announced.

use clap::Subcommand;
use sallyport_proto::v1;
use serde::Serialize;

use super::{Context, PAGE, names, pages, refused, unix};
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
    /// Say no.
    Refuse {
        /// Number of the request.
        number: u64,
    },
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

/// Runs the command.
pub(crate) async fn run(command: Command, global: &Global) -> Result {
    let mut context = Context::open(global).await?;
    let client = &mut context.connection.client;
    let decision = match command {
        Command::List { waiting } => {
            let requests = pages(async |page_token| {
                let request = v1::ListRequestsRequest { page_size: PAGE, page_token, waiting_only: waiting };
                let response = client.list_requests(request).await.map_err(refused)?.into_inner();
                Ok((response.requests, response.next_page_token))
            })
            .await?;
            let rows: Vec<Row> = requests.into_iter().map(Row::from).collect();
            return context.printer.list(&rows, "no requests");
        }
        Command::Approve { number, name, sans, holder } => {
            v1::DecideRequestRequest { number, approve: true, name, sans, holder }
        }
        Command::Refuse { number } => v1::DecideRequestRequest { number, ..v1::DecideRequestRequest::default() },
    };
    let approve = decision.approve;
    let row =
        Row::from(client.decide_request(decision).await.map_err(refused)?.into_inner().request.unwrap_or_default());
    let text = if approve {
        format!("request {} gets a certificate of {} when it asks again", row.number, row.name)
    } else {
        format!("request {} is refused", row.number)
    };
    context.printer.one(&row, &text)
}
