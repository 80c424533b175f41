//! The `xtrace` command: parses the command line, runs one command, turns errors into exit codes.

use std::process::ExitCode;

use xtrace::config::{Cli, Command};
use xtrace::{commands, exit, privileges, server, telemetry};

/// A span is dozens of small allocations, made by one thread and freed by another.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let mut cli = Cli::from_command_line();
    telemetry::init(cli.log_format);
    let outcome = privileges::leave_root(&mut cli.command).and_then(|()| run(cli.command));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The chain of causes on one line: what failed, and why.
            tracing::error!("{error:#}");
            ExitCode::from(exit::code(&error))
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(async {
        match command {
            Command::Serve(config) => server::serve(config).await,
            Command::Migrate(config) => server::migrate(config).await,
            Command::Healthcheck(target) => server::healthcheck(target).await,
            Command::Keys(command) => {
                print(&commands::keys(&command).await?);
                Ok(())
            }
            Command::Reprice(config) => {
                print(&commands::reprice(config).await?);
                Ok(())
            }
            Command::Erasures(config) => {
                print(&commands::erasures(&config).await?);
                Ok(())
            }
            Command::Version => {
                print(concat!("xtrace ", env!("CARGO_PKG_VERSION"), "\n"));
                Ok(())
            }
        }
    });
    // Work that is still on its way was told to end, and must not hold up the end of the process.
    runtime.shutdown_background();
    outcome
}

#[expect(clippy::print_stdout, reason = "the command's answer, not a log line")]
fn print(answer: &str) {
    print!("{answer}");
}
