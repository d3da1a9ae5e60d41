//! What differs between the settings that a node runs with and those that its file has now.

use crate::domain::id::SiteId;
use crate::settings::valid::{Identity, Log, Mesh, Partner, Settings, Store, Web};

/// The sections that differ, as the file names them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Those that take effect at once.
    pub live: Vec<&'static str>,
    /// Those that take effect at the next start.
    pub restart: Vec<&'static str>,
}

impl Changes {
    fn live(&mut self, section: &'static str, differs: bool) {
        self.live.extend(differs.then_some(section));
    }

    fn restart(&mut self, section: &'static str, differs: bool) {
        self.restart.extend(differs.then_some(section));
    }
}

impl Settings {
    /// What a reload of `file` would do to these running settings.
    pub fn changes_to(&self, file: &Self) -> Changes {
        // No `..`: whoever adds a section has to decide here when a change of it takes effect.
        let Self {
            runtime_id,
            identity,
            control,
            web,
            admin,
            tls,
            discovery,
            mesh,
            timing,
            profile,
            policy,
            links,
            log,
            store,
            time_source,
            workload,
            commands,
            agents,
        } = self;
        let mut changes = Changes::default();
        let next = self.with_live_of(file);
        changes.live("runtime.identity.anchors", identity.anchors != file.identity.anchors);
        changes.live("runtime.identity.bans_path", identity.bans_path != file.identity.bans_path);
        changes.live("runtime.identity.grant", identity.grants != file.identity.grants);
        changes.live("runtime.identity.partner", next.identity.partners != identity.partners);
        changes.live("runtime.mesh.partner", next.mesh.partners != mesh.partners);
        changes.live("runtime.mesh.timing", *timing != file.timing);
        changes.live("runtime.cloud.wan", *policy != file.policy);
        changes.live("runtime.log.level", log.level != file.log.level);
        changes.live("runtime.store", !is_same_but_live(store, &file.store));
        changes.restart("resource.name", *runtime_id != file.runtime_id);
        changes.restart("runtime.identity", next.identity != file.identity);
        changes.restart("runtime.control", *control != file.control);
        changes.restart("runtime.web", *web != Web { ..file.web.clone() });
        changes.restart("runtime.admin", *admin != file.admin);
        changes.restart("runtime.tls", *tls != file.tls);
        changes.restart("runtime.discovery", *discovery != file.discovery);
        changes.restart("runtime.mesh", next.mesh != file.mesh);
        changes.restart("runtime.cloud.profile", *profile != file.profile);
        changes.restart("runtime.cloud.links", *links != file.links);
        changes.restart("runtime.log.format", *log != Log { level: log.level, ..file.log });
        changes.restart("runtime.store.path", !is_same_at_rest(store, &file.store));
        changes.restart("runtime.time", *time_source != file.time_source);
        changes.restart("runtime.workload", *workload != file.workload);
        changes.restart("runtime.command", *commands != file.commands);
        changes.restart("runtime.agent", *agents != file.agents);
        changes
    }

    /// These settings with everything from `file` that takes effect at once. Partners may go at any time and come with a start.
    pub fn with_live_of(&self, file: &Self) -> Self {
        Self {
            identity: self.identity.with_live_of(&file.identity),
            mesh: self.mesh.without_those_gone_from(&file.mesh),
            timing: file.timing,
            policy: file.policy.clone(),
            log: Log { level: file.log.level, ..self.log },
            store: Store {
                receipts_kept: file.store.receipts_kept,
                runs_kept: file.store.runs_kept,
                runs_max_mb: file.store.runs_max_mb,
                read_audit_max_mb: file.store.read_audit_max_mb,
                ..self.store.clone()
            },
            ..self.clone()
        }
    }
}

impl Identity {
    /// Who is trusted may change at any time, who one is may not.
    fn with_live_of(&self, file: &Self) -> Self {
        Self {
            anchors: file.anchors.clone(),
            bans_path: file.bans_path.clone(),
            grants: file.grants.clone(),
            partners: self.partners.iter().filter(|it| file.has_partner(&it.site)).cloned().collect(),
            ..self.clone()
        }
    }

    fn has_partner(&self, site: &SiteId) -> bool {
        self.partners.iter().any(|it| it.site == *site)
    }
}

impl Mesh {
    fn without_those_gone_from(&self, file: &Self) -> Self {
        let stays = |partner: &&Partner| file.partners.iter().any(|it| it.site == partner.site);
        Self { partners: self.partners.iter().filter(stays).cloned().collect(), ..self.clone() }
    }
}

fn is_same_but_live(running: &Store, file: &Store) -> bool {
    let live = |store: &Store| (store.receipts_kept, store.runs_kept, store.runs_max_mb, store.read_audit_max_mb);
    live(running) == live(file)
}

fn is_same_at_rest(running: &Store, file: &Store) -> bool {
    let witnesses = |store: &Store| (store.witnesses, store.witness_every);
    running.path == file.path && witnesses(running) == witnesses(file)
}
