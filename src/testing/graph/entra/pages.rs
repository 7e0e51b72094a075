//! The pages, as plain HTML: forms without scripts, each named by `data-page` on its body.

use super::super::content::Body;
use super::super::reply::Reply;
use super::codes::Aadsts;
use std::fmt::Write as _;

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

fn page(status: u16, kind: &str, title: &str, content: &str) -> Reply {
    let mut body = Body::default();
    body.push(format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title></head>\n<body data-page=\"{kind}\">\n<h1>{title}</h1>\n{content}</body></html>\n",
        title = escape(title),
    ));
    Reply::raw(status, body, "text/html; charset=utf-8").with_header("Cache-Control", "no-store, no-cache")
}

/// A form of one flow.
fn form(flow: &str, inside: &str) -> String {
    format!(
        "<form method=\"post\" action=\"/login\"><input type=\"hidden\" name=\"flow\" value=\"{flow}\">{inside}</form>\n"
    )
}

fn button(name: &str, value: &str, text: &str) -> String {
    format!("<button name=\"{name}\" value=\"{}\">{}</button>", escape(value), escape(text))
}

fn complaint(error: Option<&Aadsts>) -> String {
    error.map_or_else(String::new, |error| {
        format!("<p role=\"alert\" data-code=\"{}\">AADSTS{}: {}</p>\n", error.code, error.code, escape(&error.message))
    })
}

/// The accounts this browser knows: name, sign-in name, whether the session is alive.
pub(super) fn accounts(flow: &str, known: &[(&str, &str, bool)]) -> Reply {
    let mut list = String::new();
    for (name, upn, live) in known {
        let state = if *live { "Signed in" } else { "Signed out" };
        let text = format!("{name} {upn} {state}");
        let _ = writeln!(list, "<p>{}</p>", button("account", upn, &text));
    }
    list.push_str(&format!("<p>{}</p>", button("other", "1", "Use another account")));
    page(200, "accounts", "Pick an account", &form(flow, &list))
}

pub(super) fn username(flow: &str, filled: &str, error: Option<&Aadsts>) -> Reply {
    let inside = format!(
        "<label>Email or phone <input name=\"username\" type=\"text\" value=\"{}\"></label>{}",
        escape(filled),
        button("next", "1", "Next")
    );
    page(200, "username", "Sign in", &format!("{}{}", complaint(error), form(flow, &inside)))
}

pub(super) fn password(flow: &str, upn: &str, error: Option<&Aadsts>) -> Reply {
    let inside = format!(
        "<p>{}</p><label>Password <input name=\"password\" type=\"password\"></label>{}",
        escape(upn),
        button("next", "1", "Sign in")
    );
    page(200, "password", "Enter password", &format!("{}{}", complaint(error), form(flow, &inside)))
}

pub(super) fn consent(flow: &str, app: &str, upn: &str, permissions: &[String], for_everyone: bool) -> Reply {
    let mut inside = format!("<p>{}</p><p>{} would like to:</p><ul>", escape(upn), escape(app));
    for permission in permissions {
        let _ = write!(inside, "<li>{}</li>", escape(permission));
    }
    inside.push_str("</ul>");
    if for_everyone {
        inside.push_str(
            "<label><input name=\"everyone\" type=\"checkbox\" value=\"1\">Consent on behalf of your organization</label>",
        );
    }
    inside.push_str(&button("consent", "accept", "Accept"));
    inside.push_str(&button("consent", "cancel", "Cancel"));
    page(200, "consent", "Permissions requested", &form(flow, &inside))
}

pub(super) fn admin_approval(flow: &str, app: &str, error: &Aadsts) -> Reply {
    let text = format!(
        "<p>{} needs permission to access resources in your organization that only an admin can grant.</p>\n",
        escape(app)
    );
    let back = button("return", "1", "Return to the application without granting consent");
    let other = button("other", "1", "Have an admin account? Sign in with that account");
    let inside = if error.code == 90095 { back } else { format!("{other}{back}") };
    page(
        200,
        "admin-approval",
        "Need admin approval",
        &format!("{text}{}{}", complaint(Some(error)), form(flow, &inside)),
    )
}

/// Policy, or the account, does not let the person on.
pub(super) fn blocked(flow: &str, error: &Aadsts) -> Reply {
    let inside = button("return", "1", "Return to the application");
    let content = format!("{}{}", complaint(Some(error)), form(flow, &inside));
    page(200, "blocked", "You cannot access this right now", &content)
}

/// An error that nobody is told about by redirect.
pub(super) fn failed(error: &Aadsts) -> Reply {
    page(
        error.status.max(400),
        "error",
        "Sign in",
        &format!("<p>Sorry, but we're having trouble signing you in.</p>\n{}", complaint(Some(error))),
    )
}

pub(super) fn note(kind: &str, text: &str) -> Reply {
    page(200, kind, text, "")
}

pub(super) fn device_code(filled: &str, error: Option<&str>) -> Reply {
    let error = error.map_or_else(String::new, |text| format!("<p role=\"alert\">{}</p>\n", escape(text)));
    let inside = format!(
        "{error}<form method=\"post\" action=\"/devicelogin\"><label>Code <input name=\"otc\" type=\"text\" value=\"{}\"></label>{}</form>\n",
        escape(filled),
        button("next", "1", "Next")
    );
    page(200, "device-code", "Enter code to allow access", &inside)
}

pub(super) fn device_confirm(flow: &str, app: &str, upn: &str) -> Reply {
    let title = format!("Are you trying to sign in to {app}?");
    let inside = format!(
        "<p>{}</p>{}{}",
        escape(upn),
        button("device", "continue", "Continue"),
        button("device", "cancel", "Cancel")
    );
    page(200, "device-confirm", &title, &form(flow, &inside))
}

/// `response_mode=form_post`: the browser posts the answer to the application.
pub(super) fn form_post(redirect: &str, parameters: &[(&'static str, String)]) -> Reply {
    let mut inside = String::new();
    for (name, value) in parameters {
        let _ = write!(inside, "<input type=\"hidden\" name=\"{name}\" value=\"{}\">", escape(value));
    }
    let content = format!(
        "<form method=\"post\" action=\"{}\">{inside}<button>Continue</button></form>\n<script>document.forms[0].submit()</script>",
        escape(redirect)
    );
    page(200, "form-post", "Working...", &content)
}
