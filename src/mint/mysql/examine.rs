//! What `cambio doctor` asks a MariaDB or MySQL.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use mysql_async::{Conn, prelude::Queryable as _};

use super::{MysqlLogins, statement::Dialect};
use crate::{
    mint::{
        examine::{Examine, Finding, Verdict, no_connection},
        reach::Protection,
    },
    target::mysql::MysqlGrant,
};

/// Rights on the whole server that our user needs: each by any of its names.
const NEEDED: &[&[&str]] = &[
    &["CREATE USER"],
    &["PROCESS"],
    // MariaDB, MySQL, and both of old.
    &["CONNECTION ADMIN", "CONNECTION_ADMIN", "SUPER"],
];
/// Rights on the whole server that do no harm.
const HARMLESS: &[&str] = &["USAGE"];

#[async_trait]
impl Examine for MysqlLogins {
    async fn examine(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let (mut conn, dialect) = match self.connect().await {
            Ok(found) => found,
            Err(error) => {
                let reach = &self.server.reach;
                return vec![no_connection(&reach.user, &reach.host, reach.port, &error)];
            }
        };
        findings.push(match self.server.reach.tls {
            Protection::VerifyFull(_) => {
                finding(Verdict::Good, "reached, and its certificate is verified".to_owned())
            }
            Protection::DangerouslyPlain => finding(
                Verdict::Unwise,
                "reached without TLS: set `ssl_cert` there, and leave `tls` out here".to_owned(),
            ),
        });
        match self.rights(&mut conn, dialect).await {
            Ok(found) => findings.extend(found),
            Err(error) => {
                let detail = format!("can't find out what our user may do: {error}");
                findings.push(finding(Verdict::Bad, detail));
            }
        }
        findings
    }
}

impl MysqlLogins {
    async fn rights(
        &self,
        conn: &mut Conn,
        dialect: Dialect,
    ) -> Result<Vec<Finding>, mysql_async::Error> {
        let mut findings = Vec::new();
        let me: String = conn.query_first("SELECT CURRENT_USER()").await?.unwrap_or_default();
        let me = me
            .split_once('@')
            .map_or_else(|| me.clone(), |(user, host)| format!("'{user}'@'{host}'"));
        let whole: Vec<(String, String)> = conn
            .query("SELECT PRIVILEGE_TYPE, GRANTEE FROM information_schema.USER_PRIVILEGES")
            .await?;
        let whole: BTreeSet<String> = whole
            .into_iter()
            .filter(|(_, grantee)| *grantee == me)
            .map(|(right, _)| right)
            .collect();
        let mut known: BTreeSet<&str> = HARMLESS.iter().copied().collect();
        for names in NEEDED {
            if let Some(found) = names.iter().find(|name| whole.contains(**name)) {
                known.insert(found);
                continue;
            }
            let wanted = match (dialect, *names) {
                (Dialect::MySql { .. }, [_, newer, ..]) => newer,
                (_, [name, ..]) => name,
                (_, []) => continue,
            };
            let detail = format!("it lacks a right: `GRANT {wanted} ON *.* TO {me}`");
            findings.push(finding(Verdict::Bad, detail));
        }
        let spare: Vec<&str> =
            whole.iter().map(String::as_str).filter(|right| !known.contains(right)).collect();
        if !spare.is_empty() {
            let detail = format!(
                "it has rights that it does not need: `REVOKE {} ON *.* FROM {me}`",
                spare.join(", ")
            );
            findings.push(finding(Verdict::Unwise, detail));
        }
        let look = "SELECT COUNT(*) FROM mysql.user WHERE User = '' AND Host = ''";
        if conn.query_drop(look).await.is_err() {
            let detail =
                format!("it can't find users: `GRANT SELECT (User, Host) ON mysql.user TO {me}`");
            findings.push(finding(Verdict::Bad, detail));
        }
        self.given(conn, dialect, &me, &mut findings).await?;
        if !findings.iter().any(|found| found.verdict == Verdict::Bad) {
            findings
                .push(finding(Verdict::Good, "our user can make, end and find users".to_owned()));
        }
        Ok(findings)
    }

    /// What roles give, our user must be able to give.
    async fn given(
        &self,
        conn: &mut Conn,
        dialect: Dialect,
        me: &str,
        findings: &mut Vec<Finding>,
    ) -> Result<(), mysql_async::Error> {
        let mut can: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
        let mine = "IS_GRANTABLE = 'YES'";
        let databases = format!(
            "SELECT GRANTEE, TABLE_SCHEMA, '', PRIVILEGE_TYPE FROM information_schema.SCHEMA_PRIVILEGES WHERE {mine}"
        );
        let tables = format!(
            "SELECT GRANTEE, TABLE_SCHEMA, TABLE_NAME, PRIVILEGE_TYPE FROM information_schema.TABLE_PRIVILEGES WHERE {mine}"
        );
        for query in [databases, tables] {
            let rows: Vec<(String, String, String, String)> = conn.query(query).await?;
            for (_, database, table, right) in rows.into_iter().filter(|row| row.0 == me) {
                can.entry((database.replace("\\_", "_"), table)).or_default().insert(right);
            }
        }
        let has = |database: &str, table: &str, right: &str| {
            can.get(&(database.to_owned(), table.to_owned()))
                .is_some_and(|rights| rights.contains(right))
        };
        for (name, role) in &self.server.roles {
            for MysqlGrant { database, table, privileges } in &role.grants {
                let database = database.as_str();
                let table = table.as_ref().map(crate::target::mysql::Identifier::as_str);
                let lacks: Vec<&str> = privileges
                    .iter()
                    .map(|privilege| privilege.sql)
                    .filter(|right| {
                        !has(database, "", right)
                            && !table.is_some_and(|table| has(database, table, right))
                    })
                    .collect();
                if !lacks.is_empty() {
                    let on = format!(
                        "`{database}`.{}",
                        table.map_or("*".to_owned(), |table| format!("`{table}`"))
                    );
                    let detail = format!(
                        "role `{name}` gives what our user can't give: GRANT {} ON {on} TO {me} WITH GRANT OPTION",
                        lacks.join(", ")
                    );
                    findings.push(finding(Verdict::Bad, detail));
                }
            }
            if !role.member_of.is_empty() && dialect == Dialect::MariaDb {
                let may: Option<u64> = conn
                    .query_first(
                        "SELECT COUNT(*) FROM information_schema.SCHEMA_PRIVILEGES WHERE TABLE_SCHEMA = 'mysql' AND PRIVILEGE_TYPE = 'UPDATE'",
                    )
                    .await?;
                findings.push(if may.unwrap_or_default() > 0 {
                    let detail = format!(
                        "role `{name}` has `member_of`, for which our user may change every user's rights: `grants` need less"
                    );
                    finding(Verdict::Unwise, detail)
                } else {
                    let detail = format!("role `{name}` has `member_of`: GRANT UPDATE ON mysql.* TO {me}; or use `grants`");
                    finding(Verdict::Bad, detail)
                });
            }
        }
        Ok(())
    }
}

fn finding(verdict: Verdict, detail: String) -> Finding {
    Finding { verdict, detail }
}
