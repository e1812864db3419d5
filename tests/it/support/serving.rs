//! What `cambio serve` composes, talked to over its sockets.

use std::net::SocketAddr;

use axum::{
    body::Body,
    http::{Request, header},
};
use cambio::{
    app::{Existing, Mode, Running, StartError},
    clock::{Clock as _, SystemClock},
    config::Config,
    edge::{Health as _, Power, PowerError, Powers as _},
    subject::issuers::IssuerUrl,
};
use http_body_util::BodyExt as _;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::{
    broker::{Line, form, lines, operator},
    site::{ORDERS, Site},
    token::TokenBuilder,
};
use crate::edge::surface::{Answered, FORM};

/// What `cambio serve` composes, on loopback ports of the system's choice.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(crate) site: Site,
    pub(crate) running: Running,
}

/// A broker served from `site`, as `cambio serve --create` starts one.
pub(crate) async fn serve(site: Site) -> Serving {
    serve_existing(site, Existing::Created).await
}

pub(crate) async fn serve_existing(site: Site, existing: Existing) -> Serving {
    let running = try_serve(&site, existing).await.unwrap();
    Serving { site, running }
}

pub(crate) async fn try_serve(site: &Site, existing: Existing) -> Result<Running, StartError> {
    let config = site.config();
    cambio::app::start(config, Some(site.path("cambio.yaml")), Mode::Serve, existing).await
}

/// As `cambio dev` starts one: loopback issuers are allowed, and `change` has touched the configuration.
pub(crate) async fn serve_dev(site: Site, change: impl FnOnce(&mut Config)) -> Serving {
    let mut config = site.config();
    config.issuer = IssuerUrl::dangerously_loopback("http://127.0.0.1:1").unwrap();
    change(&mut config);
    let running = cambio::app::start(config, None, Mode::Dev, Existing::Created).await.unwrap();
    Serving { site, running }
}

impl Serving {
    /// Whole seconds of the wall clock: the composed broker has no other.
    pub(crate) fn now() -> u64 {
        SystemClock.now().seconds()
    }

    /// A job's token that is good now.
    pub(crate) fn job(&self) -> TokenBuilder<'_> {
        self.site.job().issued_at(Self::now(), 300)
    }

    /// Exchanges `token` for role `read` of `jwt/orders`, over a connection of its own.
    pub(crate) async fn exchange(&self, token: &str) -> Answered {
        self.post_token(&form(token, &format!("audience={ORDERS}&scope=read"))).await
    }

    pub(crate) async fn post_token(&self, form: &str) -> Answered {
        let request = Request::post("/token").header(header::CONTENT_TYPE, FORM);
        talk(self.running.public(), request.body(Body::from(form.to_owned())).unwrap()).await
    }

    /// Sends any request to the public listener.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answered {
        talk(self.running.public(), request).await
    }

    /// Reads from the operations listener.
    pub(crate) async fn operations(&self, path: &str) -> Answered {
        let request = Request::get(path).body(Body::empty()).unwrap();
        talk(self.running.operations(), request).await
    }

    /// Reads from the public listener.
    pub(crate) async fn public(&self, path: &str) -> Answered {
        let request = Request::get(path).body(Body::empty()).unwrap();
        talk(self.running.public(), request).await
    }

    /// Uses a power on behalf of an operator.
    pub(crate) async fn power(&self, power: Power) -> Result<Value, PowerError> {
        self.running.state().exercise(power, &operator()).await
    }

    /// One of the things that readiness looks at, as `ok: detail` or `not ok: detail`.
    #[track_caller]
    pub(crate) fn check(&self, name: &str) -> String {
        let checks = self.running.state().checks(SystemClock.now());
        let check = checks.iter().find(|check| check.name == name).unwrap();
        format!("{}: {}", if check.ok { "ok" } else { "not ok" }, check.detail)
    }

    pub(crate) fn lines(&self) -> Vec<Line> {
        lines(&**self.running.state().reader())
    }

    /// Drains, and gives the site back.
    pub(crate) async fn drain(self) -> Site {
        self.running.drain().await;
        self.site
    }
}

async fn talk(address: SocketAddr, mut request: Request<Body>) -> Answered {
    request.headers_mut().insert(header::HOST, "cambio.example".parse().unwrap());
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    // Takes the sender along: once that is gone, the connection ends too.
    let exchange = async move {
        let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        Answered { status: parts.status, headers: parts.headers, body }
    };
    tokio::join!(exchange, async { connection.await.ok() }).0
}
