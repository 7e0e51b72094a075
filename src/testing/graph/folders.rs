//! Mail folders: listed, read and made.

use super::gate::Call;
use super::links::position;
use super::odata::Options;
use super::render;
use super::reply::{Refusal, Reply};
use super::routes::check_members;
use super::state::{Paging, ROOT};
use serde_json::{Value, json};

impl Call<'_> {
    pub(super) fn list_folders(&mut self, user: usize, parent: u32) -> Result<Reply, Refusal> {
        let options = Options::parse(self.query, &render::FOLDER)?;
        let store = &self.state.users[user].store;
        let mut found: Vec<u32> = store
            .children(parent)
            .filter(|(_, folder)| options.include_hidden || !folder.hidden)
            .filter(|(number, folder)| {
                options
                    .filter
                    .as_ref()
                    .is_none_or(|filter| filter.matches(&|name| render::folder_values(store, *number, folder, name)))
            })
            .map(|(number, _)| number)
            .collect();
        found.sort_by_key(|number| store.folders[number].name.to_lowercase());
        let total = found.len();
        let start = position(&options)? as usize;
        let top = options.top.unwrap_or(self.state.settings.page_size) as usize;
        let rest = found.get(start..).unwrap_or_default();
        let empty = self.page_stays_empty(!rest.is_empty());
        let take = if empty { 0 } else { top };
        let page: Vec<Value> = rest.iter().take(take).map(|number| self.folder_json(user, *number, &options)).collect();
        let next = start + page.len();
        let id = self.state.users[user].id.clone();
        let mut out = json!({
            "@odata.context": self.context(&format!("('{id}')/mailFolders")),
        });
        if next < total || (self.state.settings.trailing_empty_page && page.len() == top) {
            let token = match self.state.settings.paging {
                Paging::Mixed => parent != ROOT,
                Paging::Skip => false,
                Paging::SkipToken => true,
            };
            out["@odata.nextLink"] = self.next_link(&options, next as u64, token).into();
        }
        if options.count {
            out["@odata.count"] = total.into();
        }
        out["value"] = page.into();
        Ok(Reply::json(200, out))
    }

    pub(super) fn folder_json(&self, user: usize, number: u32, options: &Options) -> Value {
        let user = &self.state.users[user];
        render::folder(
            user,
            number,
            &user.store.folders[&number],
            options.select.as_ref(),
            options.include_hidden,
            self.state.settings.foreign_item_every,
        )
    }

    pub(super) fn one_folder(&mut self, user: usize, folder: &str) -> Result<Reply, Refusal> {
        let options = Options::parse(self.query, &render::ONE_FOLDER)?;
        let number = self.state.users[user].number;
        let folder = self.state.users[user].store.find_folder(number, folder)?;
        let mut out = self.folder_json(user, folder, &options);
        let id = &self.state.users[user].id;
        out["@odata.context"] = self.context(&format!("('{id}')/mailFolders/$entity")).into();
        Ok(Reply::json(200, out))
    }

    pub(super) fn create_folder(&mut self, user: usize, parent: u32) -> Result<Reply, Refusal> {
        self.no_options()?;
        let body = self.request.json()?;
        let allowed = ["displayName", "isHidden", "@odata.type"];
        check_members(&body, &allowed, "microsoft.graph.mailFolder")?;
        let name = body.get("displayName").and_then(Value::as_str).map(str::trim).unwrap_or_default();
        if name.is_empty() {
            return Err(Refusal::new(400, "ErrorInvalidParameter", "The folder display name must not be empty."));
        }
        if self.state.users[user].store.child_named(parent, name).is_some() {
            return Err(Refusal::new(
                self.state.settings.folder_exists_status,
                "ErrorFolderExists",
                "A folder with the specified name already exists., Could not create folder.",
            ));
        }
        let hidden = body.get("isHidden").and_then(Value::as_bool) == Some(true);
        let store = &mut self.state.users[user].store;
        if store.folders.get(&parent).is_some_and(|parent| parent.search.is_some()) {
            return Err(Refusal::new(400, "ErrorInvalidOperation", "A search folder cannot hold folders."));
        }
        let folder = store.add_folder(Some(parent), name, None, hidden);
        let mut out = self.folder_json(user, folder, &Options::default());
        let id = &self.state.users[user].id;
        out["@odata.context"] = self.context(&format!("('{id}')/mailFolders/$entity")).into();
        Ok(Reply::json(201, out))
    }
}
