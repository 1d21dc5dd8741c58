//! `sallyport pool`: the inside addresses that clients get.

use clap::{Args, Subcommand};
use sallyport_proto::v1::{AddPoolRequest, ListPoolsRequest, PoolInfo, RemovePoolRequest};
use serde::Serialize;

use super::{Context, PAGE, pages, refused};
use crate::cli::Global;
use crate::error::Result;
use crate::output::{Column, Record};

/// What to do with pools.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Add a pool.
    #[command(after_help = "\
Examples:
  sallyport pool add office --network 10.88.0.0/24 --dns 10.77.0.53
  sallyport pool add field --network 10.89.0.0/20 --exclude 10.89.0.0/28")]
    Add(Add),
    /// List the pools and how full they are.
    #[command(alias = "ls")]
    List,
    /// Remove a pool that no session uses.
    #[command(alias = "rm")]
    Remove {
        /// The pool.
        name: String,
        /// End its sessions first.
        #[arg(long)]
        force: bool,
    },
}

/// A new pool.
#[derive(Debug, Args)]
pub(crate) struct Add {
    /// The name: letters, digits, `-`, `_` and `.`.
    name: String,
    /// IPv4 network to lease addresses from, such as 10.88.0.0/24; may be given several times.
    #[arg(long = "network", required = true, value_name = "CIDR")]
    networks: Vec<String>,
    /// The gateway's own address towards clients [default: the first host address]
    #[arg(long, value_name = "ADDRESS")]
    router: Option<std::net::Ipv4Addr>,
    /// Name server for clients; may be given several times.
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<std::net::Ipv4Addr>,
    /// NetBIOS name server (WINS) for clients; may be given several times.
    #[arg(long, value_name = "ADDRESS")]
    nbns: Vec<std::net::Ipv4Addr>,
    /// Address or network that is never leased; may be given several times.
    #[arg(long = "exclude", value_name = "CIDR")]
    excluded: Vec<String>,
}

#[derive(Serialize)]
struct Row {
    name: String,
    networks: Vec<String>,
    router: String,
    dns: Vec<String>,
    nbns: Vec<String>,
    excluded: Vec<String>,
    size: u64,
    used: u64,
}

impl From<PoolInfo> for Row {
    fn from(pool: PoolInfo) -> Self {
        Self {
            name: pool.name,
            networks: pool.networks,
            router: pool.router,
            dns: pool.dns,
            nbns: pool.nbns,
            excluded: pool.excluded,
            size: pool.size,
            used: pool.used,
        }
    }
}

impl Record for Row {
    const COLUMNS: &'static [Column] = &[
        Column::left("POOL"),
        Column::left("NETWORKS"),
        Column::left("ROUTER"),
        Column::left("DNS"),
        Column::right("USED"),
        Column::right("SIZE"),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.networks.join(","),
            self.router.clone(),
            self.dns.join(","),
            self.used.to_string(),
            self.size.to_string(),
        ]
    }
}

#[derive(Serialize)]
struct Removed<'a> {
    pool: &'a str,
    ended_sessions: u32,
}

/// Runs the command.
pub(crate) async fn run(command: Command, global: &Global) -> Result {
    let mut context = Context::open(global).await?;
    let client = &mut context.connection.client;
    match command {
        Command::Add(add) => {
            let texts = |list: Vec<std::net::Ipv4Addr>| list.iter().map(ToString::to_string).collect();
            let request = AddPoolRequest {
                name: add.name,
                networks: add.networks,
                router: add.router.map(|a| a.to_string()).unwrap_or_default(),
                dns: texts(add.dns),
                nbns: texts(add.nbns),
                excluded: add.excluded,
            };
            let row = Row::from(client.add_pool(request).await.map_err(refused)?.into_inner().pool.unwrap_or_default());
            let text = format!("added pool {}: {} addresses, router {}", row.name, row.size, row.router);
            context.printer.one(&row, &text)
        }
        Command::List => {
            let pools = pages(async |page_token| {
                let request = ListPoolsRequest { page_size: PAGE, page_token };
                let response = client.list_pools(request).await.map_err(refused)?.into_inner();
                Ok((response.pools, response.next_page_token))
            })
            .await?;
            let rows: Vec<Row> = pools.into_iter().map(Row::from).collect();
            context.printer.list(&rows, "no pools; `sallyport pool add NAME --network CIDR` adds one")
        }
        Command::Remove { name, force } => {
            let request = RemovePoolRequest { name: name.clone(), force };
            let ended_sessions = client.remove_pool(request).await.map_err(refused)?.into_inner().ended_sessions;
            context.printer.one(&Removed { pool: &name, ended_sessions }, &format!("removed pool {name}"))
        }
    }
}
