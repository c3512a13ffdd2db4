"""The Log Service's client, aliyun-log-python-sdk, unmodified: every call that the service knows, with both signatures."""
import time
import unittest

from aliyun.log import (
    GetHistogramsRequest,
    GetLogsRequest,
    IndexConfig,
    IndexKeyConfig,
    IndexLineConfig,
    ListLogstoresRequest,
    LogClient,
    LogException,
    LogItem,
    PutLogsRequest,
)
from aliyun.log.auth import AUTH_VERSION_1, AUTH_VERSION_4

from service import Service

TOKENS = [",", " ", ";"]


class Calls:
    """Every call; the two classes below differ in the signature alone."""

    @classmethod
    def setUpClass(cls):
        cls.service = Service()
        cls.client = cls.new_client()
        cls.client.create_project("project-1", "for tests")

    @classmethod
    def tearDownClass(cls):
        cls.service.close()

    @classmethod
    def new_client(cls, key=None):
        key = key or cls.service.key
        client = LogClient(
            cls.service.endpoint, key["id"], key["secret"], auth_version=cls.version, region=cls.region, source="10.0.0.1"
        )
        # The project's host does not resolve.
        client._isRowIp = True
        return client

    def logstore(self, name, index=True, **more):
        self.client.create_logstore("project-1", name, ttl=3, **more)
        if index:
            keys = {"a": IndexKeyConfig(TOKENS), "n": IndexKeyConfig(index_type="long", doc_value=True)}
            self.client.create_index("project-1", name, IndexConfig(line_config=IndexLineConfig(TOKENS), key_config_list=keys))
        return name

    def put(self, logstore, *values, at=None, client=None, **more):
        at = at or int(time.time())
        items = [LogItem(timestamp=at, contents=[("a", value), ("n", str(number))]) for number, value in enumerate(values)]
        request = PutLogsRequest("project-1", logstore, "topic-1", "10.0.0.9", items, **more)
        return (client or self.client).put_logs(request)

    def refused(self, status, code, call):
        with self.assertRaises(LogException) as caught:
            call()
        self.assertEqual((caught.exception.get_error_code(), caught.exception.resp_status), (code, status))
        self.assertTrue(caught.exception.get_error_message())
        self.assertTrue(caught.exception.get_request_id())

    def test_projects(self):
        client = self.client
        client.create_project("project-2", "d/é 流量")
        found = client.get_project("project-2")
        self.assertEqual((found.get_projectname(), found.get_description()), ("project-2", "d/é 流量"))
        self.assertEqual((found.get_owner(), found.get_status()), ("1", "Normal"))
        client.update_project("project-2", "other")
        self.assertEqual(client.get_project("project-2").get_description(), "other")
        found = client.list_project()
        names = [project["projectName"] for project in found.get_projects()]
        self.assertEqual((found.get_count(), found.get_total()), (len(names), len(names)))
        self.assertIn("project-2", names)
        found = client.list_project(project_name_pattern="ject-2")
        self.assertEqual([project["projectName"] for project in found.get_projects()], ["project-2"])
        found = client.list_project(offset=1, size=1)
        self.assertEqual((found.get_count(), found.get_total()), (1, len(names)))
        client.create_logstore("project-2", "flows")
        client.delete_project("project-2")
        self.refused(404, "ProjectNotExist", lambda: client.get_project("project-2"))
        self.refused(404, "ProjectNotExist", lambda: client.delete_project("project-2"))
        self.refused(400, "ProjectAlreadyExist", lambda: client.create_project("project-1", ""))
        self.refused(400, "ParameterInvalid", lambda: client.create_project("P", ""))

    def test_logstores(self):
        client = self.client
        self.logstore("kept_1", index=False, shard_count=2, auto_split=True)
        found = client.get_logstore("project-1", "kept_1")
        self.assertEqual((found.logstore_name, found.get_ttl()), ("kept_1", 3))
        self.assertEqual((found.get_shard_count(), found.auto_split), (1, True))
        client.update_logstore("project-1", "kept_1", ttl=7, append_meta=True)
        found = client.get_logstore("project-1", "kept_1")
        self.assertEqual((found.get_ttl(), found.append_meta, found.auto_split), (7, True, True))
        self.logstore("gone", index=False)
        names = client.list_logstores(ListLogstoresRequest("project-1")).get_logstores()
        self.assertTrue({"gone", "kept_1"} <= set(names))
        found = client.list_logstore("project-1", logstore_name_pattern="kept", offset=0, size=1)
        self.assertEqual((found.get_logstores(), found.get_logstores_total()), (["kept_1"], 1))
        client.delete_logstore("project-1", "gone")
        self.refused(404, "LogStoreNotExist", lambda: client.get_logstore("project-1", "gone"))
        self.refused(404, "LogStoreNotExist", lambda: self.put("gone", "x"))
        self.refused(404, "ProjectNotExist", lambda: client.get_logstore("nowhere", "gone"))
        self.refused(400, "LogStoreAlreadyExist", lambda: client.create_logstore("project-1", "kept_1"))
        self.refused(400, "ParameterInvalid", lambda: client.create_logstore("project-1", "kept_2", ttl=0))

    def test_a_logstore_that_comes_again_is_empty(self):
        self.logstore("again")
        self.put("again", "x")
        self.client.delete_logstore("project-1", "again")
        self.logstore("again")
        now = int(time.time())
        self.assertEqual(self.client.get_log("project-1", "again", now - 100, now + 100, query="*").get_count(), 0)

    def test_indexes(self):
        client = self.client
        self.logstore("indexed", index=False)
        now = int(time.time())
        self.refused(404, "IndexConfigNotExist", lambda: client.get_index_config("project-1", "indexed"))
        self.refused(404, "IndexConfigNotExist", lambda: client.get_log("project-1", "indexed", now, now, query="*"))
        index = IndexConfig(line_config=IndexLineConfig(TOKENS), key_config_list={"a": IndexKeyConfig(TOKENS)})
        self.refused(404, "IndexConfigNotExist", lambda: client.update_index("project-1", "indexed", index))
        client.create_index("project-1", "indexed", index)
        self.refused(400, "IndexAlreadyExist", lambda: client.create_index("project-1", "indexed", index))
        index.key_config_list["n"] = IndexKeyConfig(index_type="long", doc_value=True)
        client.update_index("project-1", "indexed", index)
        found = client.get_index_config("project-1", "indexed").get_index_config()
        self.assertEqual({name: key.index_type for name, key in found.key_config_list.items()}, {"a": "text", "n": "long"})
        self.assertEqual((found.ttl, found.line_config.token_list), (3, TOKENS))
        client.delete_index("project-1", "indexed")
        self.refused(404, "IndexConfigNotExist", lambda: client.delete_index("project-1", "indexed"))

    def found(self, logstore, query="*", **more):
        now = int(time.time())
        return self.client.get_log("project-1", logstore, now - 1000, now + 100, query=query, **more)

    def test_logs_are_put_and_got(self):
        self.logstore("got")
        at = int(time.time()) - 50
        self.put("got", "first", "流量 é", at=at)
        self.put("got", "third", at=at + 1, hashKey="0f", logtags=[("t", "u")])
        self.put("got", "fourth", at=at + 2, compress=False)
        for v2 in (True, False):
            self.client._get_logs_v2_enabled = v2
            found = self.found("got")
            self.assertTrue(found.is_completed())
            self.assertEqual(found.get_count(), 4)
            logs = [(log.get_time(), log.get_source(), log.contents["a"]) for log in found.get_logs()]
            expected = [(at, "first"), (at, "流量 é"), (at + 1, "third"), (at + 2, "fourth")]
            self.assertEqual(logs, [(time, "10.0.0.9", value) for time, value in expected])
            contents = found.get_logs()[2].contents
            self.assertEqual((contents["__topic__"], contents["__tag__:t"], contents["n"]), ("topic-1", "u", "0"))
            logs = self.found("got", reverse=True, offset=1, size=2).get_logs()
            self.assertEqual([log.contents["a"] for log in logs][0], "third")
            self.assertEqual(self.found("got", topic="topic-1").get_count(), 4)
            self.assertEqual(self.found("got", topic="other").get_count(), 0)
            # The end is no longer in the range.
            some = self.client.get_log("project-1", "got", at, at + 1, query="*").get_logs()
            self.assertEqual(len(some), 2)
        self.client._get_logs_v2_enabled = True
        request = GetLogsRequest("project-1", "got", at, at + 1, "topic-1", "*", 200, 0, False)
        self.assertEqual(self.client.get_logs(request).get_count(), 2)
        self.assertEqual(sum(page.get_count() for page in self.client.get_log_all("project-1", "got", at, at + 9, query="*")), 4)
        self.refused(400, "InvalidTimestamp", lambda: self.client.get_log("project-1", "got", 2, 1, query="*"))
        self.refused(400, "ParameterInvalid", lambda: self.found("got", query="a: ("))

    def test_histograms(self):
        self.logstore("counted")
        at = int(time.time()) - 50
        self.put("counted", *"abc", at=at)
        self.put("counted", "d", at=at + 20)
        found = self.client.get_histograms(GetHistogramsRequest("project-1", "counted", at, at + 40, "topic-1", "*"))
        self.assertTrue(found.is_completed())
        self.assertEqual(found.get_total_count(), 4)
        parts = found.get_histograms()
        self.assertEqual((parts[0].get_from(), parts[-1].get_to()), (at, at + 40))
        self.assertEqual(sum(part.get_count() for part in parts), 4)

    def test_logs_are_pulled_in_the_order_in_which_they_came(self):
        client = self.client
        self.logstore("pulled", index=False)
        (shard,) = client.list_shards("project-1", "pulled").get_shards_info()
        self.assertEqual((shard["shardID"], shard["status"]), (0, "readwrite"))
        begin = client.get_begin_cursor("project-1", "pulled", 0).get_cursor()
        self.put("pulled", *(str(number) for number in range(250)))
        self.put("pulled", "last", logtags=[("t", "u")])
        end = client.get_end_cursor("project-1", "pulled", 0).get_cursor()
        for compress in (True, False):
            cursor, values = begin, []
            while cursor != end:
                found = client.pull_logs("project-1", "pulled", 0, cursor, count=100, end_cursor=end, compress=compress)
                values += [log["a"] for log in found.get_flatten_logs_json()]
                self.assertNotEqual(cursor, found.get_next_cursor())
                cursor = found.get_next_cursor()
            self.assertEqual(values, [*(str(number) for number in range(250)), "last"])
        last = found.get_flatten_logs_json()[-1]
        self.assertEqual((last["__topic__"], last["__source__"], last["__tag__:t"]), ("topic-1", "10.0.0.9", "u"))
        nothing = client.pull_logs("project-1", "pulled", 0, end)
        self.assertEqual((nothing.get_log_count(), nothing.get_next_cursor()), (0, end))
        now = int(time.time())
        pages = client.pull_log("project-1", "pulled", 0, now - 3600, now + 3600)
        self.assertEqual(sum(page.get_log_count() for page in pages), 251)
        self.refused(404, "ShardNotExist", lambda: client.get_end_cursor("project-1", "pulled", 1))
        self.refused(400, "InvalidCursor", lambda: client.pull_logs("project-1", "pulled", 0, "x"))

    def test_a_batch_is_stored_once(self):
        self.logstore("once")
        for batch in ("b-0", "b-0", "b-1"):
            self.put("once", "x", "y", logtags=[("flowlog-batch-id", batch)])
        logs = self.found("once").get_logs()
        self.assertEqual([log.contents["a"] for log in logs], ["x", "y"] * 2)
        self.assertFalse([key for key in logs[0].contents if "batch" in key])

    def test_many_logs_at_once(self):
        self.logstore("many")
        self.put("many", *("x" * 100 for _ in range(20_000)))
        now = int(time.time())
        request = GetHistogramsRequest("project-1", "many", now - 1000, now + 100, None, "*")
        self.assertEqual(self.client.get_histograms(request).get_total_count(), 20_000)

    def test_times_of_logs(self):
        self.logstore("timed")
        now = int(time.time())
        self.refused(400, "InvalidTimestamp", lambda: self.put("timed", "x", at=now + 1000))
        # It would be removed at once: the logstore keeps three days.
        self.put("timed", "x", at=now - 4 * 86_400)
        self.assertEqual(self.client.get_log("project-1", "timed", 0, now, query="*").get_count(), 0)

    def test_who_may_do_what(self):
        self.logstore("guarded")
        reader = self.new_client(self.service.access_key("reader"))
        agent = self.new_client(self.service.access_key("agent"))
        self.put("guarded", "x", client=agent)
        now = int(time.time())
        self.assertEqual(reader.get_log("project-1", "guarded", now - 100, now + 100, query="*").get_count(), 1)
        self.refused(401, "Unauthorized", lambda: self.put("guarded", "x", client=reader))
        self.refused(401, "Unauthorized", lambda: reader.delete_logstore("project-1", "guarded"))
        self.refused(401, "Unauthorized", lambda: agent.get_logstore("project-1", "guarded"))
        status, key = self.service.call("POST", "/api/v1/access-keys", body={"role": "administrator", "account_id": "2"})
        self.assertEqual(status, 200)
        other = self.new_client(key)
        self.refused(401, "Unauthorized", lambda: other.get_project("project-1"))
        self.assertEqual(other.list_project().get_total(), 0)

    def test_signatures(self):
        for key, code in [
            ({"id": self.service.key["id"], "secret": "wrong"}, "SignatureNotMatch"),
            ({"id": "nobody", "secret": "x"}, "Unauthorized"),
        ]:
            client = self.new_client(key)
            self.refused(401, code, lambda: client.get_project("project-1"))
            self.refused(401, code, lambda: self.put("any", "x", client=client))


class Version1(Calls, unittest.TestCase):
    version, region = AUTH_VERSION_1, ""


class Version4(Calls, unittest.TestCase):
    version, region = AUTH_VERSION_4, "cn-hangzhou"


if __name__ == "__main__":
    unittest.main()
