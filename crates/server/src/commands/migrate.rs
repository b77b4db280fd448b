//! `muttd migrate`: brings the catalog's schema up to date, by whoever may do that.

use super::{Global, block_on, out, print_failure, print_problems};
use clap::Args;
use std::process::ExitCode;
use storage::catalog::CatalogConfig;

#[derive(Debug, Args)]
pub struct MigrateArgs {
    /// Only say which catalog it would be
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
    if args.dry_run {
        out(&format!("the catalog is {place}\n"));
        return ExitCode::SUCCESS;
    }
    let migrated = block_on(async {
        let secrets = crate::app::secrets_for_command(&config).await?;
        let stores = config.stores.with_logins(&secrets.redis_credentials(), |user| secrets.database_credentials(user));
        if let CatalogConfig::Sqlite { file } = &stores.catalog
            && let Some(dir) = file.parent()
        {
            crate::keys::private_dir(dir)?;
        }
        Ok(storage::catalog::open(stores.catalog).await.map(drop)?)
    });
    match migrated {
        Ok(Ok(())) => {
            out(&format!("the schema is up to date: {place}\n"));
            ExitCode::SUCCESS
        }
        Ok(Err(error)) => print_failure(&error),
        Err(error) => print_failure(&error.into()),
    }
}
