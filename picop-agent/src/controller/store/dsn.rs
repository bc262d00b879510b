//! Data source names, as Go's MySQL driver has them:
//! `[user[:password]@][net[(address)]]/database[?param=value&...]`
//! (<https://github.com/go-sql-driver/mysql#dsn-data-source-name>), and the URLs that they are here.
use super::{super::segment::segment, database::BadDatabase};

const PORT: u16 = 3306;

/// The URL of a database. User and password are in a data source name as they are, so they may have any character.
/// Parameters other than `tls` are about the driver, and passed over.
pub(super) fn url(dsn: &str) -> Result<String, BadDatabase> {
    // By the last slash: passwords and sockets may have more of them.
    let (server, database) = dsn.rsplit_once('/').ok_or(BadDatabase::Dsn)?;
    let (database, params) = database.split_once('?').unwrap_or((database, ""));
    if database.is_empty() {
        return Err(BadDatabase::Dsn);
    }
    let (user, at) = server.rsplit_once('@').unwrap_or(("", server));
    let (user, password) =
        user.split_once(':').map_or((user, None), |(user, password)| (user, Some(password)));
    let (net, address) = match at.split_once('(') {
        Some((net, address)) => (net, address.strip_suffix(')').ok_or(BadDatabase::Dsn)?),
        None => (at, ""),
    };
    let mut options = Vec::new();
    let host = match net {
        "" | "tcp" | "tcp4" | "tcp6" => host(address)?,
        "unix" => {
            options.push(format!(
                "socket={}",
                segment(if address.is_empty() { "/tmp/mysql.sock" } else { address })
            ));
            "localhost".to_owned()
        }
        _ => return Err(BadDatabase::Dsn),
    };
    options.extend(tls(params)?.map(|mode| format!("ssl-mode={mode}")));
    let account = match password {
        _ if user.is_empty() => String::new(),
        None => format!("{}@", segment(user)),
        Some(password) => format!("{}:{}@", segment(user), segment(password)),
    };
    let options = if options.is_empty() { String::new() } else { format!("?{}", options.join("&")) };
    Ok(format!("mysql://{account}{host}/{database}{options}"))
}

fn host(address: &str) -> Result<String, BadDatabase> {
    if address.is_empty() {
        return Ok(format!("127.0.0.1:{PORT}"));
    }
    // Behind an address of IPv6 in brackets there may be a port; within them there is none.
    let has_port = address.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
    let whole = if has_port { address.to_owned() } else { format!("{address}:{PORT}") };
    let is_good = whole.parse::<hyper::http::uri::Authority>().is_ok_and(|authority| {
        !authority.host().is_empty() && authority.port_u16().is_some() && !authority.as_str().contains('@')
    });
    if is_good { Ok(whole) } else { Err(BadDatabase::Dsn) }
}

/// How it is to be encrypted, in the URL's words; none leaves it to what the server can do.
fn tls(params: &str) -> Result<Option<&'static str>, BadDatabase> {
    let value = params.split('&').filter_map(|param| param.split_once('=')).find(|(name, _)| *name == "tls");
    Ok(match value.map(|(_, value)| value) {
        None => None,
        Some("true") => Some("VERIFY_IDENTITY"),
        Some("skip-verify") => Some("REQUIRED"),
        Some("preferred") => Some("PREFERRED"),
        Some("false") => Some("DISABLED"),
        Some(_) => return Err(BadDatabase::Tls),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_go_has_them() {
        for (dsn, wanted) in [
            // The reference's demo.
            (
                "picop:picop@tcp(proxy-controller-db:3306)/picop?parseTime=true&collation=utf8mb4_bin",
                "mysql://picop:picop@proxy-controller-db:3306/picop",
            ),
            ("u:p/w@rd:?#%@tcp(10.0.0.1:3307)/db", "mysql://u:p%2Fw%40rd%3A%3F%23%25@10.0.0.1:3307/db"),
            ("u@tcp([fd00::7]:3306)/db?tls=true", "mysql://u@[fd00::7]:3306/db?ssl-mode=VERIFY_IDENTITY"),
            ("u@tcp([fd00::7])/db", "mysql://u@[fd00::7]:3306/db"),
            ("u@tcp(h)/db?tls=skip-verify", "mysql://u@h:3306/db?ssl-mode=REQUIRED"),
            ("u@tcp/db?tls=false", "mysql://u@127.0.0.1:3306/db?ssl-mode=DISABLED"),
            ("/db?tls=preferred", "mysql://127.0.0.1:3306/db?ssl-mode=PREFERRED"),
            ("u:@unix(/run/my sql.sock)/db", "mysql://u:@localhost/db?socket=%2Frun%2Fmy%20sql.sock"),
        ] {
            assert_eq!(url(dsn).as_deref(), Ok(wanted), "{dsn}");
            // And what is made of them is what a URL is asked to be.
            assert_eq!(wanted.parse(), Ok(super::super::Database::MySql(wanted.to_owned())), "{dsn}");
        }
        for bad in
            ["", "db", "u@tcp(h:1)/", "u@tcp(h:1/db", "u@udp(h:1)/db", "u@tcp(h:99999)/db", "u@tcp(:1)/db"]
        {
            assert_eq!(url(bad), Err(BadDatabase::Dsn), "{bad}");
        }
        assert_eq!(url("u@tcp(h:1)/db?tls=mine"), Err(BadDatabase::Tls));
    }
}
