//! `muttd migrate`: brings the catalog's schema up to date, by whoever may do that.

use super::{Global, block_on, out, print_failure, print_problems};
use clap::Args;
use std::process::ExitCode;
use storage::catalog::CatalogConfig;

#[derive(Debug, Args)]
pub struct MigrateArgs {
    /// Only say which catalog it would be, and which steps of its schema are still to do
    #[arg(long)]
    pub dry_run: bool,
}

pub fn run(global: &Global, args: &MigrateArgs) -> ExitCode {
    let config = match global.load_installed() {
        Ok(loaded) => loaded.config,
        Err(problems) => return print_problems(&problems),
    };
    let place = match &config.stores.catalog {
        CatalogConfig::Sqlite { file } => format!("SQLite in {}", file.display()),
        CatalogConfig::Postgres(postgres) => {
            format!("PostgreSQL, database {} at {}:{}", postgres.database, postgres.host, postgres.port)
        }
    };
    let done = block_on(async {
        let secrets = crate::app::secrets_for_command(&config).await?;
        let stores = config.stores.with_logins(&secrets.redis_credentials(), |user| secrets.database_credentials(user));
        if args.dry_run {
            let steps = storage::catalog::pending_steps(&stores.catalog).await?;
            return Ok(if steps.is_empty() {
                format!("the catalog is {place}\nthe schema is up to date; there is nothing to do\n")
            } else {
                format!("the catalog is {place}\nsteps that a run would make:\n  {}\n", steps.join("\n  "))
            });
        }
        if let CatalogConfig::Sqlite { file } = &stores.catalog
            && let Some(dir) = file.parent()
        {
            crate::keys::private_dir(dir)?;
        }
        storage::catalog::open(stores.catalog).await?;
        Ok(format!("the schema is up to date: {place}\n"))
    });
    match done {
        Ok(Ok(text)) => {
            out(&text);
            ExitCode::SUCCESS
        }
        Ok(Err(error)) => print_failure(&error),
        Err(error) => print_failure(&error.into()),
    }
}
