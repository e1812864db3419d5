//! What `cambio doctor` asks a Redis or Valkey.

use std::collections::HashMap;

use async_trait::async_trait;
use redis::{Value, aio::MultiplexedConnection};

use super::{RedisLogins, ask};
use crate::mint::{
    examine::{Examine, Finding, Verdict, no_connection},
    reach::Protection,
};

/// What our user must be able to say.
const NEEDED: &[(&str, &[&str])] = &[
    ("+acl|setuser", &["ACL", "SETUSER", "cambio"]),
    ("+acl|deluser", &["ACL", "DELUSER", "cambio"]),
    ("+acl|getuser", &["ACL", "GETUSER", "cambio"]),
    ("+acl|users", &["ACL", "USERS"]),
    ("+acl|save", &["ACL", "SAVE"]),
    ("+ping", &["PING"]),
];
/// Of what our user needs nothing, one for each kind of power.
const TOO_MANY: &[(&str, &[&str])] = &[
    ("-@read", &["GET", "cambio"]),
    ("-@write", &["SET", "cambio", "1"]),
    ("-config", &["CONFIG", "GET", "port"]),
    ("-flushall", &["FLUSHALL"]),
    ("-shutdown", &["SHUTDOWN"]),
    ("-eval", &["EVAL", "return 1", "0"]),
    ("-@pubsub", &["PUBLISH", "cambio", "1"]),
];

#[async_trait]
impl Examine for RedisLogins {
    async fn examine(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut connection = match self.connect().await {
            Ok(connection) => connection,
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
                "reached without TLS: set `tls-port` there, and leave `tls` out here".to_owned(),
            ),
        });
        self.rights(&mut connection, &mut findings).await;
        findings.extend(default_user(&mut connection).await);
        findings
    }
}

impl RedisLogins {
    async fn rights(&self, connection: &mut MultiplexedConnection, findings: &mut Vec<Finding>) {
        let user = self.server.reach.user.as_str();
        let mut lacks = Vec::new();
        for (rule, command) in NEEDED {
            match may(connection, user, command).await {
                Ok(true) => {}
                Ok(false) => lacks.push(*rule),
                Err(reason) => {
                    let detail = format!(
                        "can't find out what our user may do ({reason}): `ACL SETUSER {user} +acl|dryrun`"
                    );
                    findings.push(finding(Verdict::Unwise, detail));
                    return;
                }
            }
        }
        findings.push(if lacks.is_empty() {
            finding(Verdict::Good, "our user can make, end and find users".to_owned())
        } else {
            let detail = format!("our user lacks rights: `ACL SETUSER {user} {}`", lacks.join(" "));
            finding(Verdict::Bad, detail)
        });
        let mut spare = Vec::new();
        for (rule, command) in TOO_MANY {
            if may(connection, user, command).await == Ok(true) {
                spare.push(*rule);
            }
        }
        if !spare.is_empty() {
            let detail = format!(
                "our user has rights that it does not need: `ACL SETUSER {user} {}`",
                spare.join(" ")
            );
            findings.push(finding(Verdict::Unwise, detail));
        }
    }
}

/// Who need not log in has more than any login of ours.
async fn default_user(connection: &mut MultiplexedConnection) -> Option<Finding> {
    let user: HashMap<String, Value> =
        ask(connection, &["ACL", "GETUSER", "default"]).await.ok()?;
    let flags: Vec<String> = redis::from_redis_value(user.get("flags")?.clone()).ok()?;
    let has = |flag: &str| flags.iter().any(|found| found == flag);
    (has("on") && has("nopass")).then(|| {
        let detail = "user `default` needs no password: `ACL SETUSER default off`, or give it one";
        finding(Verdict::Unwise, detail.to_owned())
    })
}

/// Asked of the server, and not done.
async fn may(
    connection: &mut MultiplexedConnection,
    user: &str,
    command: &[&str],
) -> Result<bool, String> {
    let dry = [["ACL", "DRYRUN", user].as_slice(), command].concat();
    let said: Result<String, _> = ask(connection, &dry).await;
    said.map(|said| said == "OK").map_err(|error| error.to_string())
}

fn finding(verdict: Verdict, detail: String) -> Finding {
    Finding { verdict, detail }
}
