//! `[registrations.*]` and `[accounts.*]`: which accounts there are, and what is wrong with each.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::Arc,
};

use toml::{Table, Value as Toml};

use super::{
    SignIn,
    file::{Document, join, suggest},
    kinds::{APP, PROVIDER, REGISTRATION},
    registry::{Registry, Settings},
    value::{self, Problem},
};
use crate::{
    Context, Error, ErrorKind, MailAccount, MailboxInfo, Result,
    auth::{Registration, is_guid},
    provider::{Opening, is_address},
    setting::{Field, Places, Value},
};

#[cfg(feature = "oauth")]
use crate::auth::SignInSettings;

/// One `[accounts.*]`.
#[derive(Clone, Debug)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) provider: String,
    pub(super) enabled: bool,
    address: Option<String>,
    /// What the mailbox is probably called, where the settings cannot be read: its rows in the ledger still have an
    /// owner then.
    guess: Option<String>,
    pub(super) host: Option<String>,
    pub(super) sign_in: Option<SignIn>,
    places: Places,
    settings: Result<Arc<dyn Settings>, Problem>,
}

impl Account {
    /// Which mailbox this is, as far as the file tells.
    pub(super) fn mailbox(&self) -> Option<MailboxInfo> {
        match &self.settings {
            Ok(settings) => Some(settings.mailbox(&self.opening(Context::default()))),
            Err(_) => self.guess.as_deref().map(|name| MailboxInfo::new(&self.name, &self.provider, name)),
        }
    }

    /// Where the mailbox lies: a path or an object id is one mailbox, whatever `address` says. Other names tell nothing
    /// here, each of two servers may have a mailbox of that name.
    pub(super) fn lies_at(&self) -> Option<String> {
        let opening = Opening::new(&self.name).with_places(self.places.clone());
        let name = self.settings.as_ref().ok()?.mailbox(&opening).name;
        (Path::new(&name).is_absolute() || is_guid(&name)).then_some(name)
    }

    /// What is wrong inside the account, as far as the file tells.
    pub(super) fn problem(&self) -> Option<Error> {
        self.settings.as_ref().err().map(|problem| self.error(problem.0.clone()))
    }

    /// Opens it; `with` adds what it is opened with.
    pub(super) fn open_with(
        &self,
        context: Context,
        with: impl FnOnce(Opening) -> Opening,
    ) -> Result<Arc<dyn MailAccount>> {
        let placed = |e: Error| e.with_account(&self.name).with_provider(self.provider.clone()).with_operation("open");
        self.usable()?.open(with(self.opening(context))).map_err(placed)
    }

    /// How it signs in with OAuth, if it does.
    #[cfg(feature = "oauth")]
    pub(super) fn sign_in(&self) -> Result<Option<SignInSettings>> {
        let placed = |e: Error| e.with_account(&self.name).with_provider(self.provider.clone());
        self.usable()?.sign_in(&self.places).map_err(placed)
    }

    fn usable(&self) -> Result<&Arc<dyn Settings>> {
        if !self.enabled {
            return Err(self.error(format!(
                "`accounts.{}.enabled` is `false`, so the account is not opened; write `true` or remove the line",
                self.name
            )));
        }
        self.settings.as_ref().map_err(|problem| self.error(problem.0.clone()))
    }

    fn opening(&self, context: Context) -> Opening {
        Opening::new(&self.name)
            .with_address(self.address.clone())
            .with_context(context)
            .with_places(self.places.clone())
    }

    pub(super) fn error(&self, message: String) -> Error {
        Error::new(ErrorKind::InvalidConfig, message).with_account(&self.name).with_provider(self.provider.clone())
    }
}

/// All of them, in the order of the file.
#[derive(Debug)]
pub(super) struct Accounts {
    list: Vec<Account>,
    by_name: HashMap<String, usize>,
}

impl Accounts {
    pub(super) fn get(&self, name: &str) -> Option<&Account> {
        self.by_name.get(name).map(|at| &self.list[*at])
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Account> {
        self.list.iter()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|account| account.name.as_str())
    }
}

/// The tables of one section, by their trimmed names, in the order of the file.
///
/// # Errors
///
/// The section is no table of tables, a name is empty or cannot be told from another.
pub(super) fn named(document: &Document, section: &str, value: Option<Toml>) -> Result<Vec<(String, String, Table)>> {
    let Some(value) = value else {
        return Ok(Vec::new());
    };
    let Toml::Table(tables) = value else {
        return Err(document.invalid(section, &format!("must be a group of tables: `[{section}.NAME]`")));
    };
    let mut found: Vec<(String, String, Table)> = Vec::new();
    let mut places = HashMap::new();
    for (key, value) in tables {
        let place = join(section, &key);
        let name = key.trim().to_owned();
        let Toml::Table(table) = value else {
            return Err(document.invalid(&place, &format!("must be a table: `[{section}.NAME]`")));
        };
        if name.is_empty() || name.contains(char::is_control) {
            return Err(document.invalid(&place, "is not a usable name; write letters, digits and dashes"));
        }
        if let Some(other) = places.insert(name.clone(), place.clone()) {
            return Err(
                document.invalid(&place, &format!("has the same name as `{other}`; blanks around a name do not count"))
            );
        }
        found.push((name, place, table));
    }
    found.sort_by_key(|(_, place, _)| document.line(place));
    Ok(found)
}

/// The app registrations, by name.
pub(super) type Registrations = BTreeMap<String, (String, Table, Option<Problem>)>;

pub(super) fn registrations(document: &Document, value: Option<Toml>) -> Result<Registrations> {
    let fields = Registration::fields();
    let mut all = BTreeMap::new();
    for (name, place, mut table) in named(document, "registrations", value)? {
        let problem = value::check(document, &place, "an app registration", &mut table, &fields)?;
        all.insert(name, (place, table, problem));
    }
    Ok(all)
}

pub(super) fn accounts(
    document: &Document,
    registry: &Registry,
    registrations: &Registrations,
    value: Option<Toml>,
) -> Result<Accounts> {
    let list = named(document, "accounts", value)?
        .into_iter()
        .map(|(name, place, table)| account(document, registry, registrations, name, &place, table))
        .collect::<Result<Vec<_>>>()?;
    let by_name = list.iter().enumerate().map(|(at, account)| (account.name.clone(), at)).collect();
    Ok(Accounts { list, by_name })
}

fn account(
    document: &Document,
    registry: &Registry,
    registrations: &Registrations,
    name: String,
    place: &str,
    mut table: Table,
) -> Result<Account> {
    let provider_place = join(place, PROVIDER);
    let known = || registry.kinds().map(|kind| kind.id);
    let provider = match table.remove(PROVIDER) {
        Some(Toml::String(provider)) => provider.trim().to_owned(),
        Some(_) => return Err(document.invalid(&provider_place, "must be a text")),
        None => {
            let list: Vec<_> = known().map(|id| format!("`\"{id}\"`")).collect();
            return Err(document.invalid(&provider_place, &format!("is missing; write {}", list.join(" or "))));
        }
    };
    let Some(entry) = registry.get(&provider) else {
        let hint = suggest(&provider, known());
        return Err(document.invalid(&provider_place, &format!("is `{provider}`, which is not a provider; {hint}")));
    };
    let fields = &entry.kind.fields;
    let what = format!("an account of provider `{provider}`");
    let wrong = value::check(document, place, &what, &mut table, fields)?;
    let address = match table.remove("address") {
        Some(Toml::String(address)) => Some(address),
        _ => None,
    };
    let enabled = table.remove("enabled").and_then(|flag| flag.as_bool()).unwrap_or(true);

    let text = |key: &str| table.get(key).and_then(Toml::as_str).filter(|name| is_address(name)).map(str::to_owned);
    let guess = address.clone().or_else(|| text("mailbox")).or_else(|| text("username"));

    let host = table.get("host").and_then(Toml::as_str).map(|host| host.trim().to_owned());
    let sign_in = match (table.contains_key("password"), table.contains_key("oauth") || table.contains_key("auth")) {
        (true, false) => Some(SignIn::Password),
        (false, true) => Some(SignIn::Token),
        _ => None,
    };

    let mut places = Places::new(&name);
    let laid = lay(document, registrations, place, "", &mut table, fields, &mut places);
    let settings = match wrong.or(laid) {
        Some(problem) => Err(problem),
        // What the checks above let through, serde still names; it has no secret to quote, for those are checked.
        None => (entry.parse)(table)
            .map_err(|e| Problem(document.sentence(place, &format!("cannot be used: {}", e.message())))),
    };
    Ok(Account { name, provider, enabled, address, guess, host, sign_in, places, settings })
}

/// Lays the keys of an app registration and those of the account together, and puts them into `app`.
fn lay(
    document: &Document,
    registrations: &Registrations,
    place: &str,
    prefix: &str,
    table: &mut Table,
    fields: &[Field],
    places: &mut Places,
) -> Option<Problem> {
    let mut first = None;
    if fields.iter().any(|field| field.registration) {
        let mut app = Table::new();
        for field in fields.iter().filter(|field| field.registration) {
            if let Some(value) = table.remove(field.name) {
                app.insert(field.name.to_owned(), value);
            }
        }
        if let Some(Toml::String(name)) = table.remove(REGISTRATION) {
            first = first.or(share(document, registrations, place, prefix, &name, &mut app, places));
        }
        first = first.or_else(|| required_of_app(document, place, &app, fields));
        table.insert(APP.to_owned(), Toml::Table(app));
    }
    let own: Vec<_> = fields.iter().filter(|field| !field.registration).cloned().collect();
    first = first.or_else(|| value::missing(document, place, table, &own));
    for field in &own {
        if let (Value::Group(inner), Some(Toml::Table(group))) = (&field.value, table.get_mut(field.name)) {
            let (place, prefix) = (join(place, field.name), format!("{prefix}{}.", field.name));
            let problem = lay(document, registrations, &place, &prefix, group, inner, places);
            first = first.or(problem);
        }
    }
    first
}

fn required_of_app(document: &Document, place: &str, app: &Table, fields: &[Field]) -> Option<Problem> {
    let fields: Vec<_> = fields.iter().filter(|field| field.registration).cloned().collect();
    value::missing(document, place, app, &fields)
        .map(|Problem(text)| Problem(format!("{text}, here or in an app registration that `registration` names")))
}

fn share(
    document: &Document,
    registrations: &Registrations,
    place: &str,
    prefix: &str,
    name: &str,
    app: &mut Table,
    places: &mut Places,
) -> Option<Problem> {
    let Some((from, shared, problem)) = registrations.get(name) else {
        let hint = suggest(name, registrations.keys().map(String::as_str));
        return Some(Problem(document.sentence(
            &join(place, REGISTRATION),
            &format!("is `{name}`, but there is no `[registrations.{name}]`; {hint}"),
        )));
    };
    for (key, value) in shared {
        let there = join(from, key);
        if app.contains_key(key) {
            return Some(Problem(
                document.sentence(&join(place, key), &format!("is also given as `{there}`; keep one of them")),
            ));
        }
        app.insert(key.clone(), value.clone());
        places.put(format!("{prefix}{key}"), there);
    }
    problem.clone()
}
