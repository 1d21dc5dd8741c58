//! Completions for shells and manual pages, made from the command line's own description.

use std::fs;
use std::path::PathBuf;

use clap::{Args, CommandFactory, ValueHint};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::error::{Error, Result};
use crate::output::print;

/// Which completions.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sallyport completion bash > /etc/bash_completion.d/sallyport
  sallyport completion zsh > /usr/local/share/zsh/site-functions/_sallyport
  sallyport completion fish > ~/.config/fish/completions/sallyport.fish")]
pub(crate) struct Completion {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

impl Completion {
    /// Prints the completions.
    pub(crate) fn run(&self) -> Result {
        // Into a buffer first: the generator panics where standard output is a closed pipe.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "sallyport", &mut script);
        print(&String::from_utf8_lossy(&script))
    }
}

/// Where manual pages go.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sallyport man | man -l -
  sallyport man /usr/local/share/man/man1")]
pub(crate) struct Man {
    /// Folder for one page for each command; without it the main page goes to standard output.
    #[arg(value_hint = ValueHint::DirPath)]
    dir: Option<PathBuf>,
}

impl Man {
    /// Prints or writes the pages.
    pub(crate) fn run(&self) -> Result {
        match &self.dir {
            None => print(&String::from_utf8_lossy(&page(Cli::command())?)),
            Some(dir) => {
                fs::create_dir_all(dir).map_err(|e| Error::file("make", dir, &e))?;
                clap_mangen::generate_to(Cli::command(), dir).map_err(|e| Error::file("write into", dir, &e))
            }
        }
    }
}

fn page(command: clap::Command) -> Result<Vec<u8>> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    Ok(page)
}
