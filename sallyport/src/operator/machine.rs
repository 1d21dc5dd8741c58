//! `sallyport machine`: the machines that have certificates or may get one.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};
use sallyport_proto::v1;
use serde::Serialize;

use super::{Context, PAGE, names, pages, refused, unix};
use crate::cli::Global;
use crate::clock::unix_now;
use crate::error::{Error, Result};
use crate::output::{Column, Record, rfc3339};

/// Machines in one call: these are stored all or none.
const BATCH: usize = 1_000;

/// What to do with machines.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the machines, their certificates, and when each is overdue with its renewal.
    #[command(alias = "ls")]
    List {
        /// Only names and holders that contain this.
        filter: Option<String>,
        /// Only those that are overdue with their renewal.
        #[arg(long)]
        overdue: bool,
    },
    /// Add a machine that may enroll without a token, or change what the list says of it.
    #[command(after_help = "\
What lets it in is its key, or once the network that it comes from; with both given, both are needed. There it is
`sallyport enroll --server HOST --root-fingerprint SHA256` (`sallyport ca show root` has the fingerprint), which prints the key's SHA-256
and keeps the key; other tools ask by EST without a password. Of a machine that is known, what is not given stays as it is; with --replace it is taken away.

Examples:
  sallyport machine add pos1.example.com --network 198.51.100.0/28 --holder 'shop 1'
  sallyport machine add pos2.example.com --key 5d8c...")]
    Add(Add),
    /// Add many machines from a CSV file, and replace what the list says of those that are known.
    #[command(after_help = "\
The first line names the columns: name, and any of sans (separated by spaces), holder, key_sha256 (hexadecimal), network (CIDR),
profile. Fields may be quoted. The machines of up to 1,000 lines are stored all or none; of a longer file it is said which lines were
stored if something is wrong in the rest: correct it and import the whole file again.

Example:
  name,holder,network
  pos1.example.com,shop 1,198.51.100.0/28")]
    Import {
        /// The file.
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Remove a machine: none of its certificates renews any more.
    #[command(alias = "rm")]
    Remove {
        /// Its name.
        name: String,
        /// Revoke its certificates, too: its tunnels end, and its tokens open nothing any more (`cert revoke` says more).
        #[arg(long)]
        revoke: bool,
    },
}

/// A machine of the list.
#[derive(Debug, Args)]
pub(crate) struct Add {
    /// The name in its certificate: a DNS name.
    name: String,
    /// Further DNS name or IP address in its certificate; may be given several times.
    #[arg(long = "san", value_name = "NAME")]
    sans: Vec<String>,
    /// SHA-256 of its public key (SubjectPublicKeyInfo), hexadecimal.
    #[arg(long = "key", value_name = "SHA256", required_unless_present_any = ["network", "holder", "sans"])]
    key_sha256: Option<String>,
    /// Network from which it may enroll once.
    #[arg(long, value_name = "CIDR")]
    network: Option<String>,
    /// Whose machine it is.
    #[arg(long, value_name = "TEXT")]
    holder: Option<String>,
    /// The certificate profile.
    #[arg(long, default_value = "machine", value_name = "PROFILE")]
    profile: String,
    /// Take away what the list says of it and is not given here.
    #[arg(long)]
    replace: bool,
}

#[derive(Serialize)]
struct Row {
    name: String,
    sans: Vec<String>,
    profile: String,
    state: &'static str,
    serial: String,
    not_after: String,
    due: String,
    enrolled: String,
    method: &'static str,
    holder: String,
    network: String,
    key_sha256: String,
}

impl From<v1::Machine> for Row {
    fn from(machine: v1::Machine) -> Self {
        let now = unix_now();
        let state = match machine {
            _ if machine.certificate_serial.is_empty() => "expected",
            _ if machine.revoked => "revoked",
            _ if unix(machine.not_after_unix_ms) <= now => "expired",
            _ if machine.due_unix_ms != 0 && unix(machine.due_unix_ms) <= now => "overdue",
            _ => "valid",
        };
        Self {
            state,
            not_after: rfc3339(unix(machine.not_after_unix_ms)),
            due: rfc3339(unix(machine.due_unix_ms)),
            enrolled: rfc3339(unix(machine.enrolled_unix_ms)),
            method: names::enroll_method(machine.method()),
            key_sha256: crate::hex::lower(&machine.key_sha256),
            name: machine.name,
            sans: machine.sans,
            profile: machine.profile,
            serial: machine.certificate_serial,
            holder: machine.holder,
            network: machine.network,
        }
    }
}

impl Record for Row {
    const COLUMNS: &'static [Column] = &[
        Column::left("MACHINE"),
        Column::left("STATE"),
        Column::left("NOT AFTER"),
        Column::left("OVERDUE FROM"),
        Column::left("BY"),
        Column::left("HOLDER"),
        Column::left("SERIAL"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.state.into(),
            self.not_after.clone(),
            self.due.clone(),
            self.method.into(),
            self.holder.clone(),
            self.serial.clone(),
        ]
    }
}

/// Runs the command.
pub(crate) async fn run(command: Command, global: &Global) -> Result {
    // A file that cannot be read is said before anybody is asked.
    let import = match &command {
        Command::Import { file } => Some(read_csv(file)?),
        _ => None,
    };
    let mut context = Context::open(global).await?;
    let client = &mut context.connection.client;
    match command {
        Command::List { filter, overdue } => {
            let contains = filter.unwrap_or_default();
            let machines = pages(async |page_token| {
                let request = v1::ListMachinesRequest {
                    page_size: PAGE,
                    page_token,
                    contains: contains.clone(),
                    overdue_only: overdue,
                };
                let response = client.list_machines(request).await.map_err(refused)?.into_inner();
                Ok((response.machines, response.next_page_token))
            })
            .await?;
            let rows: Vec<Row> = machines.into_iter().map(Row::from).collect();
            let none = match (overdue, contains.is_empty()) {
                (true, _) => "no machine is overdue with its renewal",
                (false, false) => "no machine has that in its name or its holder",
                (false, true) => "no machines; `sallyport token create --machine NAME` lets one in",
            };
            context.printer.list(&rows, none)
        }
        Command::Add(add) => {
            let machine = v1::Machine {
                name: add.name.clone(),
                profile: add.profile,
                sans: add.sans,
                holder: add.holder.unwrap_or_default(),
                key_sha256: add
                    .key_sha256
                    .as_deref()
                    .map(key_sha256)
                    .transpose()
                    .map_err(Error::usage)?
                    .unwrap_or_default(),
                network: add.network.unwrap_or_default(),
                ..v1::Machine::default()
            };
            let request = v1::PutMachinesRequest { machines: vec![machine], keep: !add.replace };
            let answer = client.put_machines(request).await.map_err(refused)?.into_inner();
            let text = match answer.need_token {
                0 => format!("{} may enroll", add.name),
                _ => format!("{} is known; give it a key or a network, or a token, to let it in", add.name),
            };
            context.printer.one(&serde_json::json!({ "name": add.name, "needs_token": answer.need_token != 0 }), &text)
        }
        Command::Import { .. } => {
            let listed = import.unwrap_or_default();
            let (count, mut need_token, mut stored) = (listed.len(), 0, None);
            for batch in listed.chunks(BATCH) {
                let machines = batch.iter().map(|listed| listed.machine.clone()).collect();
                let answer = client.put_machines(v1::PutMachinesRequest { machines, keep: false }).await;
                let answer = answer.map_err(|status| match stored {
                    None => refused(status),
                    Some(line) => refused(status).remedy(format!(
                        "the machines up to line {line} are stored and those behind it are not: correct the file and import all of it \
                         again"
                    )),
                })?;
                need_token += answer.into_inner().need_token;
                stored = batch.last().map(|listed| listed.line);
            }
            let text = match need_token {
                0 => format!("{count} machines may enroll"),
                _ => format!(
                    "{count} machines are known; of {need_token} the list names neither key nor network, so only a token lets them in"
                ),
            };
            context.printer.one(&serde_json::json!({ "machines": count, "need_token": need_token }), &text)
        }
        Command::Remove { name, revoke } => {
            // First this: what stays known if the second fails is a machine that opens nothing.
            if revoke {
                let request = v1::RevokeCertificatesRequest {
                    which: Some(v1::revoke_certificates_request::Which::Machine(name.clone())),
                    reason: v1::RevocationReason::CessationOfOperation.into(),
                    text: "the machine was removed".into(),
                };
                client.revoke_certificates(request).await.map_err(refused)?;
            }
            client.remove_machine(v1::RemoveMachineRequest { name: name.clone() }).await.map_err(refused)?;
            context.printer.one(
                &serde_json::json!({ "name": name }),
                &format!(
                    "removed {name}: it renews no more{}",
                    if revoke { ", and its certificates are revoked" } else { "" }
                ),
            )
        }
    }
}

fn key_sha256(text: &str) -> std::result::Result<Vec<u8>, String> {
    let digits: String = text.chars().filter(|c| *c != ':').collect();
    let byte = |at: usize| digits.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let bytes: Option<Vec<u8>> = (0..64).step_by(2).map(byte).collect();
    bytes.filter(|_| digits.len() == 64).ok_or_else(|| format!("{text:?} is no SHA-256: 64 hexadecimal digits"))
}

/// A machine of a file, and where it stands there.
#[derive(Debug)]
struct Listed {
    line: usize,
    machine: v1::Machine,
}

fn read_csv(file: &std::path::Path) -> Result<Vec<Listed>> {
    let text =
        std::fs::read_to_string(file).map_err(|e| Error::failed(format!("cannot read {}: {e}", file.display())))?;
    parse_csv(&text).map_err(|e| Error::usage(format!("{}: {e}", file.display())))
}

fn parse_csv(text: &str) -> std::result::Result<Vec<Listed>, String> {
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let (_, head) = lines.next().ok_or("the file is empty")?;
    let columns = fields(head.trim_start_matches('\u{feff}')).map_err(|e| format!("line 1: {e}"))?;
    let columns: Vec<String> = columns.iter().map(|c| c.trim().to_lowercase()).collect();
    if let Some(odd) =
        columns.iter().find(|c| !["name", "sans", "holder", "key_sha256", "network", "profile"].contains(&c.as_str()))
    {
        return Err(format!("line 1: no column {odd:?}; there are name, sans, holder, key_sha256, network, profile"));
    }
    if !columns.iter().any(|c| c == "name") {
        return Err("line 1: the first line names the columns, and one of them is `name`".into());
    }
    // Found before anything is sent: of a long file the controller sees a part at a time.
    let (mut names, mut keys) = (BTreeMap::new(), BTreeMap::new());
    lines
        .map(|(number, line)| {
            let number = number + 1;
            let cells = fields(line).map_err(|e| format!("line {number}: {e}"))?;
            if cells.len() != columns.len() {
                return Err(format!("line {number}: {} fields, and {} columns", cells.len(), columns.len()));
            }
            let mut machine = v1::Machine::default();
            for (column, cell) in columns.iter().zip(cells) {
                let cell = cell.trim().to_owned();
                match column.as_str() {
                    "name" => machine.name = cell,
                    "sans" => machine.sans = cell.split_whitespace().map(str::to_owned).collect(),
                    "holder" => machine.holder = cell,
                    "network" => machine.network = cell,
                    "profile" => machine.profile = cell,
                    _ if cell.is_empty() => {}
                    _ => machine.key_sha256 = key_sha256(&cell).map_err(|e| format!("line {number}: {e}"))?,
                }
            }
            if machine.name.is_empty() {
                return Err(format!("line {number}: no name"));
            }
            if let Some(first) = names.insert(machine.name.to_lowercase(), number) {
                return Err(format!("line {number}: {} stands in line {first}, too", machine.name));
            }
            if !machine.key_sha256.is_empty()
                && let Some(first) = keys.insert(machine.key_sha256.clone(), number)
            {
                return Err(format!("line {number}: the machine of line {first} has the same key"));
            }
            Ok(Listed { line: number, machine })
        })
        .collect()
}

/// The fields of a line, RFC 4180 §2 without line breaks inside of quotes.
fn fields(line: &str) -> std::result::Result<Vec<String>, &'static str> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                field.push('"');
                chars.next();
            }
            '"' if quoted => quoted = false,
            '"' if field.trim().is_empty() => {
                quoted = true;
                field.clear();
            }
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            _ => field.push(c),
        }
    }
    if quoted {
        return Err("a quotation mark without its other half");
    }
    fields.push(field);
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_machines_is_read_as_spreadsheets_write_it() {
        let key = "ab".repeat(32);
        let text = format!(
            "\u{feff}Name,holder,sans,key_sha256,network\r\nA.example.com,\"Ada, \"\"the\"\" boss\",b.example.com 192.0.2.1,{key},\r\n\r\nc.example.com,,,,198.51.100.0/28\r\n"
        );
        let listed = parse_csv(&text).expect("reads");
        assert_eq!(listed.iter().map(|l| l.line).collect::<Vec<_>>(), [2, 4]);
        let machines: Vec<v1::Machine> = listed.into_iter().map(|l| l.machine).collect();
        assert_eq!((machines[0].name.as_str(), machines[0].holder.as_str()), ("A.example.com", "Ada, \"the\" boss"));
        assert_eq!(machines[0].sans, ["b.example.com", "192.0.2.1"]);
        assert_eq!(machines[0].key_sha256, [0xab; 32]);
        assert_eq!(machines[1].network, "198.51.100.0/28");
    }

    #[test]
    fn what_is_wrong_in_a_list_is_said_by_its_line() {
        for (text, part) in [
            ("", "empty"),
            ("holder\nx", "`name`"),
            ("name,colour\na,b", "colour"),
            ("name\na,b", "line 2: 2 fields"),
            ("name\n\n\"a", "line 3: a quotation"),
            ("name,key_sha256\na,zz", "line 2"),
            ("name,holder\n,x", "line 2: no name"),
            ("name\na.example.com\nA.example.com", "line 3: A.example.com stands in line 2"),
        ] {
            let error = parse_csv(text).expect_err(text);
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }
}
