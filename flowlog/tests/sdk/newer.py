"""The newer SDK, alibabacloud_vpc20160428, unmodified: every action, and every class of error."""
import datetime
import sqlite3
import time
import unittest
from unittest import mock

from alibabacloud_tea_openapi.models import Config
from alibabacloud_vpc20160428 import models
from alibabacloud_vpc20160428.client import Client

from service import REGION, Agent, Service


def client(service, key=None, endpoint=None):
    key = key or service.key
    return Client(
        Config(
            access_key_id=key["id"],
            access_key_secret=key["secret"],
            endpoint=endpoint or service.endpoint,
            protocol="http",
            region_id=REGION,
            # Longer than the service waits for its own state.
            read_timeout=60_000,
        )
    )


class Actions(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.service = Service("flow-logs-per-region = 4\nrequests-per-second = 100000\nrequests-at-once = 100000\n")
        cls.agent = Agent(cls.service)
        cls.client = client(cls.service)

    @classmethod
    def tearDownClass(cls):
        cls.agent.close()
        cls.service.close()

    def tearDown(self):
        self.agent.go.set()
        for log in self.describe():
            self.settled(log.flow_log_id)
            self.client.delete_flow_log(models.DeleteFlowLogRequest(region_id=REGION, flow_log_id=log.flow_log_id))
            self.until(log.flow_log_id, "gone")

    def create(self, sdk=None, **more):
        given = dict(region_id=REGION, resource_type="VPC", resource_id="vpc-1", traffic_type="All")
        given.update(more)
        return (sdk or self.client).create_flow_log(models.CreateFlowLogRequest(**given)).body.flow_log_id

    def describe(self, **given):
        body = self.client.describe_flow_logs(models.DescribeFlowLogsRequest(region_id=REGION, **given)).body
        return body.flow_logs.flow_log

    def status(self, id):
        found = self.describe(flow_log_id=id)
        return found[0].status if found else "gone"

    def until(self, id, *wanted):
        deadline = time.monotonic() + 60
        while self.status(id) not in wanted:
            self.assertLess(time.monotonic(), deadline, f"{id} is {self.status(id)}, not {wanted}")

    def settled(self, id):
        self.until(id, "Active", "Inactive", "gone")

    def refused(self, code, status, call):
        with self.assertRaises(Exception) as caught:
            call()
        self.assertEqual(caught.exception.code, code)
        self.assertEqual(caught.exception.status_code, status)
        self.assertTrue(caught.exception.message)

    def of(self, request, id, **more):
        return request(region_id=REGION, flow_log_id=id, **more)

    def test_a_flow_log_lives_with_every_attribute(self):
        id = self.create(
            flow_log_name="my flow-log_1",
            description="d/é 流量 +~%&=",
            project_name="project-1",
            log_store_name="store_1",
            aggregation_interval=1,
            ip_version="IPv4",
            log_format="${srcaddr} ${dstaddr}",
            resource_group_id="rg-1",
            traffic_path=["all"],
            tag=[models.CreateFlowLogRequestTag(key="k", value="v 流+")],
        )
        self.assertRegex(id, r"^fl-[a-z0-9]{21}$")
        self.until(id, "Active")
        (log,) = self.describe(flow_log_id=id)
        expected = {
            "AggregationInterval": 1,
            "BusinessStatus": "Normal",
            "Description": "d/é 流量 +~%&=",
            "FlowLogId": id,
            "FlowLogName": "my flow-log_1",
            "IpVersion": "IPv4",
            "LogFormat": "${srcaddr} ${dstaddr}",
            "LogStoreName": "store_1",
            "ProjectName": "project-1",
            "RegionId": REGION,
            "ResourceGroupId": "rg-1",
            "ResourceId": "vpc-1",
            "ResourceType": "VPC",
            "Status": "Active",
            "TrafficType": "All",
            "Tags": {"Tag": [{"Key": "k", "Value": "v 流+"}]},
            "TrafficPath": {"TrafficPathList": ["all"]},
        }
        found = log.to_map()
        self.assertEqual({name: found[name] for name in expected}, expected)
        created = datetime.datetime.strptime(log.creation_time, "%Y-%m-%dT%H:%M:%S%z")
        now = datetime.datetime.now(datetime.timezone.utc)
        self.assertLess(abs((now - created).total_seconds()), 900)

    def test_states_follow_the_agent(self):
        self.agent.go.clear()
        id = self.create()
        modify = self.of(models.ModifyFlowLogAttributeRequest, id, aggregation_interval=5)
        steps = [
            (lambda: None, "Activating", "Active"),
            (lambda: self.client.modify_flow_log_attribute(modify), "Modifying", "Active"),
            (lambda: self.client.deactive_flow_log(self.of(models.DeactiveFlowLogRequest, id)), "Deactivating", "Inactive"),
            (lambda: self.client.active_flow_log(self.of(models.ActiveFlowLogRequest, id)), "Activating", "Active"),
            (lambda: self.client.delete_flow_log(self.of(models.DeleteFlowLogRequest, id)), "Deleting", "gone"),
        ]
        for change, meanwhile, after in steps:
            self.agent.go.clear()
            change()
            self.assertEqual(self.status(id), meanwhile)
            delete = self.of(models.DeleteFlowLogRequest, id)
            self.refused("IncorrectStatus.flowlog", 409, lambda: self.client.delete_flow_log(delete))
            self.agent.go.set()
            self.until(id, after)

    def test_deliveries_are_told(self):
        id = self.create()
        self.until(id, "Active")
        self.assertEqual(self.describe(flow_log_id=id)[0].flow_log_deliver_status, "SUCCESS")
        self.agent.deliveries[id] = "disk full"
        self.agent.report(self.agent.state["version"])
        (log,) = self.describe(flow_log_id=id)
        told = (log.flow_log_deliver_status, log.flow_log_deliver_error_message)
        self.assertEqual(told, ("FAILED", "host-1: disk full"))

    def test_tags_and_groups(self):
        id = self.create(tag=[models.CreateFlowLogRequestTag(key="a", value="1")])
        self.until(id, "Active")
        resource = dict(region_id=REGION, resource_type="FLOWLOG", resource_id=[id])
        tags = [models.TagResourcesRequestTag(key="b", value="2"), models.TagResourcesRequestTag(key="c", value="")]
        self.client.tag_resources(models.TagResourcesRequest(tag=tags, **resource))
        listed = self.client.list_tag_resources(models.ListTagResourcesRequest(**resource)).body
        found = {(tag.resource_id, tag.tag_key, tag.tag_value) for tag in listed.tag_resources.tag_resource}
        self.assertEqual(found, {(id, "a", "1"), (id, "b", "2"), (id, "c", "")})
        wanted = [models.DescribeFlowLogsRequestTags(key="b", value="2")]
        self.assertEqual([log.flow_log_id for log in self.describe(tags=wanted)], [id])
        wanted = [models.DescribeFlowLogsRequestTags(key="b", value="3")]
        self.assertEqual(self.describe(tags=wanted), [])
        self.client.un_tag_resources(models.UnTagResourcesRequest(tag_key=["a", "c"], **resource))
        (log,) = self.describe(flow_log_id=id)
        self.assertEqual([(tag.key, tag.value) for tag in log.tags.tag], [("b", "2")])
        self.client.un_tag_resources(models.UnTagResourcesRequest(all=True, **resource))
        self.assertEqual(self.describe(flow_log_id=id)[0].tags.tag, [])
        move = models.MoveResourceGroupRequest(
            region_id=REGION, resource_type="FLOWLOG", resource_id=id, new_resource_group_id="rg-2"
        )
        self.client.move_resource_group(move)
        self.assertEqual(self.describe(resource_group_id="rg-2")[0].flow_log_id, id)

    def test_the_service_is_opened(self):
        region = "region-to-open"
        status = lambda: self.client.get_flow_log_service_status(
            models.GetFlowLogServiceStatusRequest(region_id=region)
        ).body.enabled
        opening = lambda: self.client.open_flow_log_service(models.OpenFlowLogServiceRequest(region_id=region))
        self.assertIs(status(), False)
        body = opening().body
        self.assertTrue(body.code and body.message and body.request_id)
        self.assertIs(status(), True)
        self.refused("OperationFailed.ExceedPurchaseLimit", 400, opening)

    def test_lists_are_filtered(self):
        ids = {
            kind: self.create(resource_type=kind, resource_id=resource, traffic_type=traffic, flow_log_name=kind)
            for kind, resource, traffic in [
                ("VPC", "vpc-1", "All"),
                ("VSwitch", "vsw-1", "Allow"),
                ("NetworkInterface", "eni-2", "Drop"),
            ]
        }
        for given, kinds in [
            (dict(resource_type="VSwitch"), {"VSwitch"}),
            (dict(resource_id="eni-2"), {"NetworkInterface"}),
            (dict(traffic_type="Allow"), {"VSwitch"}),
            (dict(flow_log_name="VPC"), {"VPC"}),
            (dict(vpc_id="vpc-1"), {"VPC", "VSwitch", "NetworkInterface"}),
            (dict(vpc_id="vpc-2"), set()),
        ]:
            found = {log.flow_log_id for log in self.describe(**given)}
            self.assertEqual(found, {ids[kind] for kind in kinds}, given)

    def test_what_is_refused(self):
        id = self.create()
        self.until(id, "Active")
        create = lambda **given: lambda: self.create(**given)
        active = lambda id: lambda: self.client.active_flow_log(self.of(models.ActiveFlowLogRequest, id))
        wrong = dict(self.service.key, secret="wrong")
        nobody = dict(self.service.key, id="nobody")
        reader = self.service.access_key("reader")
        inactive = self.service.access_key("administrator")
        self.service.call("PATCH", f"/api/v1/access-keys/{inactive['id']}", body={"status": "Inactive"})
        tag = models.TagResourcesRequestTag(key="k", value="v")
        too_many = [models.CreateFlowLogRequestTag(key=f"k{number}") for number in range(21)]
        for code, status, call in [
            ("InvalidFlowLogId.NotFound", 404, active("fl-none")),
            ("IncorrectStatus.flowlog", 409, active(id)),
            ("InvalidResourceId.NotFound", 404, create(resource_id="vpc-none")),
            ("InvalidRegionId.NotFound", 404, create(region_id="a b")),
            ("MissingParameter.RegionId", 400, create(region_id=None)),
            ("MissingParameter.ResourceType", 400, create(resource_type=None)),
            ("MissingParameter.ResourceId", 400, create(resource_id=None)),
            ("MissingParameter.TrafficType", 400, create(traffic_type=None)),
            ("InvalidParameter.ResourceType", 400, create(resource_type="vpc")),
            ("InvalidParameter.TrafficType", 400, create(traffic_type="Reject")),
            ("InvalidParameter.AggregationInterval", 400, create(aggregation_interval=2)),
            ("InvalidParameter.FlowLogName", 400, create(flow_log_name="流" * 129)),
            ("InvalidParameter.FlowLogName", 400, create(flow_log_name="http://x")),
            ("InvalidParameter.Description", 400, create(description="流" * 257)),
            ("InvalidParameter.ProjectName", 400, create(project_name="a_b")),
            ("InvalidParameter.LogStoreName", 400, create(log_store_name="-ab")),
            ("InvalidParameter.LogFormat", 400, create(log_format="${none}")),
            ("InvalidParameter.IpVersion", 400, create(ip_version="IPv5")),
            ("InvalidParameter.TrafficPath", 400, create(traffic_path=["some"])),
            ("UnsupportedFeature.TrafficPath", 400, create(traffic_path=["internetGateway"])),
            ("InvalidParameter.Tag.Value", 400, create(tag=[models.CreateFlowLogRequestTag(key="k", value="acs:x")])),
            ("InvalidParameter.Status", 400, lambda: self.describe(status="Running")),
            ("InvalidParameter.PageNumber", 400, lambda: self.describe(page_number=0)),
            ("MissingParameter.FlowLogId", 400, active(None)),
            ("MissingParameter.FlowLogName", 400, lambda: self.client.modify_flow_log_attribute(
                self.of(models.ModifyFlowLogAttributeRequest, id))),
            ("MissingParameter.ResourceId", 400, lambda: self.client.tag_resources(
                models.TagResourcesRequest(region_id=REGION, resource_type="FLOWLOG", tag=[tag]))),
            ("MissingParameter.Tag", 400, lambda: self.client.tag_resources(
                models.TagResourcesRequest(region_id=REGION, resource_type="FLOWLOG", resource_id=[id]))),
            ("InvalidParameter.ResourceType", 400, lambda: self.client.tag_resources(
                models.TagResourcesRequest(region_id=REGION, resource_type="VPC", resource_id=[id], tag=[tag]))),
            ("InvalidParameter.Tag.Key", 400, create(tag=[models.CreateFlowLogRequestTag(key="acs:x")])),
            ("QuotaExceeded.Tag", 400, create(tag=too_many)),
            ("InvalidParameter.PageSize", 400, lambda: self.describe(page_size=51)),
            ("InvalidAccessKeyId.NotFound", 404, create(sdk=client(self.service, nobody))),
            ("InvalidAccessKeyId.Inactive", 403, create(sdk=client(self.service, inactive))),
            ("SignatureDoesNotMatch", 400, create(sdk=client(self.service, wrong))),
            ("Forbidden.Role", 403, create(sdk=client(self.service, reader))),
            ("Forbidden.Role", 403, create(sdk=client(self.service, self.agent.key))),
            ("InvalidAction.NotFound", 404, lambda: self.client.describe_vpcs(models.DescribeVpcsRequest(region_id=REGION))),
        ]:
            with self.subTest(code=code):
                self.refused(code, status, call)
        for _ in range(3):
            self.create()
        self.refused("QuotaExceeded.FlowLog", 400, self.create)

    def test_names_at_their_edges(self):
        for name in ["a", "流", "流" * 128, "a b+c~d%&=/?*'\"()"]:
            id = self.create(flow_log_name=name)
            self.assertEqual(self.describe(flow_log_name=name)[0].flow_log_id, id)
            self.until(id, "Active")
            self.client.delete_flow_log(self.of(models.DeleteFlowLogRequest, id))
            self.until(id, "gone")

    def test_replays_and_stale_dates(self):
        module = "alibabacloud_tea_openapi.utils.Utils."
        with mock.patch(module + "get_nonce", return_value="the-same"):
            self.describe()
            self.refused("SignatureNonceUsed", 400, self.describe)
        with mock.patch(module + "get_timestamp", return_value="2020-01-01T00:00:00Z"):
            self.refused("InvalidTimeStamp.Expired", 400, self.describe)
        with mock.patch(module + "get_timestamp", return_value="yesterday"):
            self.refused("InvalidTimeStamp.Format", 400, self.describe)


class Limits(unittest.TestCase):
    def refused(self, code, status, call):
        with self.assertRaises(Exception) as caught:
            call()
        self.assertEqual((caught.exception.code, caught.exception.status_code), (code, status))

    def of_nobody(self, **more):
        given = dict(region_id=REGION, resource_type="VPC", resource_id="vpc-1", traffic_type="All")
        return models.CreateFlowLogRequest(**dict(given, **more))

    def test_regions_are_limited_where_any_is_taken(self):
        service = Service("regions-per-account = 2\nallow-unknown-resources = true\n")
        self.addCleanup(service.close)
        sdk = client(service)
        for region in ["region-1", "region-2", "region-1"]:
            sdk.create_flow_log(self.of_nobody(region_id=region))
        create = lambda: sdk.create_flow_log(self.of_nobody(region_id="region-3"))
        self.refused("QuotaExceeded.Region", 400, create)
        listed = Service('regions = ["region-1"]\ndefault-region = "region-1"\n')
        self.addCleanup(listed.close)
        sdk = client(listed)
        create = lambda: sdk.create_flow_log(self.of_nobody(region_id="region-2"))
        self.refused("InvalidRegionId.NotFound", 404, create)

    def test_a_state_that_cannot_be_changed_now(self):
        service = Service("allow-unknown-resources = true\n")
        self.addCleanup(service.close)
        sdk = client(service)
        create = lambda: sdk.create_flow_log(self.of_nobody())
        state = sqlite3.connect(service.data / "flowlog.sqlite", isolation_level=None)
        self.addCleanup(state.close)
        state.execute("BEGIN IMMEDIATE")
        self.refused("ServiceUnavailable", 503, create)
        state.execute("ROLLBACK")
        self.assertTrue(create().body.flow_log_id)

    def test_too_many_requests_of_all_keys(self):
        service = Service()
        self.addCleanup(service.close)
        service.kill()
        nonces = sqlite3.connect(service.data / "nonces.sqlite", isolation_level=None)
        many = "WITH RECURSIVE number (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM number WHERE n < 999999)"
        nonces.execute(f"{many} INSERT INTO nonce SELECT 'key' || (n / 100000), n, 1 << 50 FROM number")
        nonces.close()
        service.start("127.0.0.1:0")
        describe = lambda: client(service).describe_flow_logs(models.DescribeFlowLogsRequest(region_id=REGION))
        self.refused("SystemBusy", 503, describe)

    def test_a_key_that_asks_too_often_is_throttled(self):
        service = Service("requests-per-second = 1\nrequests-at-once = 1\n")
        try:
            sdk = client(service)
            with self.assertRaises(Exception) as caught:
                for _ in range(1000):
                    sdk.describe_flow_logs(models.DescribeFlowLogsRequest(region_id=REGION))
            self.assertEqual((caught.exception.code, caught.exception.status_code), ("Throttling.User", 429))
        finally:
            service.close()

    def test_what_was_answered_outlives_a_kill(self):
        service = Service()
        try:
            agent = Agent(service)
            agent.close()
            given = dict(region_id=REGION, resource_type="VPC", resource_id="vpc-1", traffic_type="All")
            id = client(service).create_flow_log(models.CreateFlowLogRequest(**given)).body.flow_log_id
            service.kill()
            service.start(service.endpoint)
            found = client(service).describe_flow_logs(models.DescribeFlowLogsRequest(region_id=REGION)).body
            self.assertEqual([log.flow_log_id for log in found.flow_logs.flow_log], [id])
            self.assertIn("CreateFlowLog", [entry["action"] for entry in service.audit(id)])
        finally:
            service.close()


if __name__ == "__main__":
    unittest.main()
