//! Access keys and roles.
use super::super::{Need, access_keys};
use super::*;

fn create(rig: &Rig, role: &str) -> api::CreatedAccessKey {
    let asked = api::CreateAccessKey {
        role: role.into(),
        ..Default::default()
    };
    rig.ok(|state, cx| access_keys::create(state, cx, &rig.seal, &asked))
}

#[test]
fn roles_may_do_what_they_are_for() {
    let rig = Rig::new();
    let may = |role| {
        let caller = rig.cx("1", role, "key").caller;
        [Need::Read, Need::Change, Need::Agent].map(|need| caller.may(need).is_ok())
    };
    assert_eq!(may(Role::Administrator), [true, true, false]);
    assert_eq!(may(Role::Reader), [true, false, false]);
    assert_eq!(may(Role::Agent), [false, false, true]);
}

#[test]
fn keys_are_made_sealed_and_told_once() {
    let rig = Rig::new();
    let key = create(&rig, "reader");
    assert!(key.id.starts_with("FLAK") && key.secret.len() == 40);
    let find = |id: &str| {
        rig.ok(|state, _| Ok(access_keys::find_sealed(state, id)))
            .map_err(|error| error.kind())
    };
    let (caller, sealed) = find(&key.id).unwrap();
    assert_eq!(
        (caller.role, caller.account_id.as_str()),
        (Role::Reader, "1")
    );
    assert_eq!(rig.seal.open_secret(&key.id, &sealed).unwrap(), key.secret);
    assert_eq!(find("none").unwrap_err(), Code::AccessKeyNotFound);
    let listed = rig.ok(access_keys::list);
    let told = serde_json::to_string(&listed).unwrap();
    assert!(told.contains(&key.id) && !told.contains(&key.secret));
    for (role, description) in [("root", ""), ("Reader", ""), ("reader", "a\nb")] {
        let asked = api::CreateAccessKey {
            role: role.into(),
            description: description.into(),
            account_id: None,
        };
        let code = rig.refused(|state, cx| access_keys::create(state, cx, &rig.seal, &asked));
        assert_eq!(code, Code::InvalidParameter, "{role} {description:?}");
    }
}

#[test]
fn nobody_locks_the_account_out() {
    let rig = Rig::new();
    let (first, second, reader) = (
        create(&rig, "administrator"),
        create(&rig, "administrator"),
        create(&rig, "reader"),
    );
    let set = |id: &str, status: &str| {
        let asked = api::ModifyAccessKey {
            status: status.into(),
        };
        rig.run(&rig.admin(), |state, cx| {
            access_keys::modify(state, cx, id, &asked)
        })
        .map(|key| key.status)
        .map_err(|error| error.kind())
    };
    let delete = |id: &str| {
        rig.run(&rig.admin(), |state, cx| access_keys::delete(state, cx, id))
            .map(|_| ())
            .map_err(|error| error.kind())
    };
    assert_eq!(set(&first.id, "Inactive"), Ok("Inactive".into()));
    let inactive = rig.ok(|state, _| Ok(access_keys::find_sealed(state, &first.id)));
    assert_eq!(inactive.unwrap_err().kind(), Code::AccessKeyInactive);
    assert_eq!(set(&second.id, "Inactive"), Err(Code::LastAdministrator));
    assert_eq!(delete(&second.id), Err(Code::LastAdministrator));
    assert_eq!(set(&first.id, "active"), Err(Code::InvalidParameter));
    assert_eq!(set(&first.id, "Active"), Ok("Active".into()));
    assert_eq!(delete(&second.id), Ok(()));
    assert_eq!(delete(&second.id), Err(Code::AccessKeyNotFound));
    assert_eq!(delete(&reader.id), Ok(()));
    // Another account's key is no key to this one.
    let stranger = rig.cx("2", Role::Administrator, "stranger");
    let error = rig
        .run(&stranger, |state, cx| {
            access_keys::delete(state, cx, &first.id)
        })
        .unwrap_err();
    assert_eq!(error.kind(), Code::AccessKeyNotFound);
}

#[test]
fn there_is_a_limit_to_access_keys() {
    let rig = Rig::with(Config {
        access_keys_per_account: 1,
        ..Config::default()
    });
    create(&rig, "administrator");
    let asked = api::CreateAccessKey {
        role: "reader".into(),
        ..Default::default()
    };
    let code = rig.refused(|state, cx| access_keys::create(state, cx, &rig.seal, &asked));
    assert_eq!(code, Code::QuotaAccessKeys);
    // Another account has its own.
    rig.agent("2");
}

#[test]
fn keys_of_other_accounts_are_made_in_the_services_own_account_alone() {
    let rig = Rig::new();
    let create = |of: &str, account: &str| {
        let asked = api::CreateAccessKey {
            role: "administrator".into(),
            account_id: Some(account.into()),
            ..Default::default()
        };
        let cx = rig.cx(of, Role::Administrator, "admin");
        rig.run(&cx, |state, cx| {
            access_keys::create(state, cx, &rig.seal, &asked)
        })
        .map(|key| key.account_id)
        .map_err(|error| error.kind())
    };
    assert_eq!(create("1", "2"), Ok("2".into()));
    assert_eq!(create("2", "2"), Ok("2".into()));
    assert_eq!(create("2", "1"), Err(Code::ForbiddenRole));
    assert_eq!(create("2", "3"), Err(Code::ForbiddenRole));
}
