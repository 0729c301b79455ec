//! Pages of a server, and the cookies that they set.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::doctor::evidence::{Asked, Cookie};
use crate::plan::spec::{Framework, HealthTest, Spec};
use crate::runtime::look::words;
use crate::runtime::page::{self, Answer, Question};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// How many redirects are followed: to a page that lets people log in, it is one.
const REDIRECTS: usize = 3;
/// How many names of neighbours' cookies are tried: together they are a header, which servers limit to 8 KiB.
const NEIGHBOURS: usize = 20;
/// No session has this key, and every framework takes it for one that might be.
const NO_SESSION: &str = "lanewaydoctorlanewaydoctor000000";

/// Where the server of `spec` answers; why it cannot be asked.
pub fn address(spec: &Spec) -> Result<SocketAddr, String> {
    let Some(port) = spec.facts.port else { return Err("it has no port".to_owned()) };
    match spec.healthcheck.as_ref().map(|check| &check.test) {
        Some(HealthTest::Http { scheme, .. }) if scheme == "https" => Err("it speaks https".to_owned()),
        Some(HealthTest::Http { .. }) => Ok(SocketAddr::new(spec.facts.reachable_host(), port)),
        // What does not say that it speaks HTTP is not spoken to.
        _ => Err("it has no health check over HTTP".to_owned()),
    }
}

/// The page of the health check.
pub fn health_path(spec: &Spec) -> &str {
    match spec.healthcheck.as_ref().map(|check| &check.test) {
        Some(HealthTest::Http { path, .. }) => path,
        _ => "/",
    }
}

/// Asks the server of `spec` for `path`, with the headers of its health check.
pub fn get(spec: &Spec, path: &str, cookies: &str) -> Result<Answer, String> {
    let address = address(spec)?;
    let own = match spec.healthcheck.as_ref().map(|check| &check.test) {
        Some(HealthTest::Http { headers, .. }) => Some(headers),
        _ => None,
    };
    let mut headers = vec![("User-Agent", "laneway-doctor"), ("Accept", "*/*")];
    headers.extend(own.into_iter().flatten().map(|(name, value)| (name.as_str(), value.as_str())));
    if !cookies.is_empty() {
        headers.push(("Cookie", cookies));
    }
    let question = Question { method: "GET", path, headers: &headers, body: "" };
    page::ask(address, &question, PATIENCE).map_err(|error| match error.kind() {
        io::ErrorKind::TimedOut => format!("{path} got no answer within {} s", PATIENCE.as_secs()),
        _ => format!("{path}: {}", words(&error)),
    })
}

/// The cookies that the server of `spec` sets, or takes back when somebody comes with a session that it does not know:
/// so its session cookie is known without a login.
pub fn cookies(spec: &Spec, fleet: &[&Spec]) -> Asked<Vec<Cookie>> {
    if let Err(why) = address(spec) {
        return Asked::Not(why);
    }
    let tried = candidates(spec, fleet);
    let sent = tried.iter().map(|name| format!("{name}={NO_SESSION}")).collect::<Vec<_>>().join("; ");
    let mut pages: Vec<String> = vec!["/".to_owned(), health_path(spec).to_owned()];
    if spec.facts.framework == Framework::Django {
        pages.push("/admin/login/".to_owned());
    }
    let mut found: Vec<Cookie> = Vec::new();
    let mut asked = BTreeSet::new();
    let mut failure = None;
    for page in pages {
        // The login page of an admin site, where nothing else shows the cookie of the forms.
        if page == "/admin/login/" && found.iter().any(|cookie| !cookie.is_taken_back) {
            continue;
        }
        let mut path = page;
        for _ in 0..=REDIRECTS {
            if !asked.insert(path.clone()) {
                break;
            }
            let answer = match get(spec, &path, &sent) {
                Ok(answer) => answer,
                Err(why) => {
                    failure = Some(why);
                    break;
                }
            };
            for line in answer.all("set-cookie") {
                let cookie = read_cookie(line, &path, &tried);
                if !found.iter().any(|known| known.name == cookie.name && known.path == cookie.path) {
                    found.push(cookie);
                }
            }
            let next = answer.all("location").next().filter(|_| (300..400).contains(&answer.status));
            match next.and_then(|location| same_server(location, spec)) {
                Some(next) => path = next,
                None => break,
            }
        }
    }
    match failure {
        Some(why) if found.is_empty() => Asked::Failed(why),
        _ => Asked::Got(found),
    }
}

/// Which names may be those of its session cookie: the default, its own, and its neighbours'.
fn candidates(spec: &Spec, fleet: &[&Spec]) -> Vec<String> {
    let mut names = vec!["sessionid".to_owned(), spec.facts.session_cookie.clone()];
    for other in fleet.iter().take(NEIGHBOURS) {
        if !names.contains(&other.facts.session_cookie) {
            names.push(other.facts.session_cookie.clone());
        }
    }
    names
}

fn read_cookie(line: &str, page: &str, tried: &[String]) -> Cookie {
    let mut parts = line.split(';').map(str::trim);
    let (name, value) = parts.next().and_then(|pair| pair.split_once('=')).unwrap_or((line, ""));
    let mut path = "/".to_owned();
    let mut is_over = false;
    for (key, value) in parts.filter_map(|part| part.split_once('=')) {
        if key.eq_ignore_ascii_case("path") {
            value.clone_into(&mut path);
        } else if key.eq_ignore_ascii_case("max-age") {
            is_over = value == "0";
        }
    }
    let is_taken_back = tried.iter().any(|known| known == name) && (is_over || value.trim_matches('"').is_empty());
    Cookie { name: name.to_owned(), path, page: page.to_owned(), is_taken_back }
}

/// The path that a redirect leads to, if it stays with this server.
fn same_server(location: &str, spec: &Spec) -> Option<String> {
    if location.starts_with('/') && !location.starts_with("//") {
        return Some(location.to_owned());
    }
    let rest = location.strip_prefix("http://")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    (host == address(spec).ok()?.to_string()).then(|| format!("/{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_read_as_browsers_do() {
        let tried = ["sessionid".to_owned()];
        let table = [
            ("csrftoken=abc; Path=/; SameSite=Lax", ("csrftoken", "/", false)),
            ("sessionid=\"\"; expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; Path=/", ("sessionid", "/", true)),
            ("sessionid=fresh; HttpOnly; path=/chat", ("sessionid", "/chat", false)),
            ("lang=; Max-Age=0", ("lang", "/", false)),
            ("odd", ("odd", "/", false)),
        ];
        for (line, (name, path, is_taken_back)) in table {
            let expected = Cookie { name: name.to_owned(), path: path.to_owned(), page: "/".to_owned(), is_taken_back };
            assert_eq!(read_cookie(line, "/", &tried), expected, "{line}");
        }
    }
}
