"""The older SDK, aliyun-python-sdk-vpc, unmodified: it signs with HMAC-SHA1, in parameters."""
import json
import time
import unittest

from aliyunsdkcore.acs_exception.exceptions import ServerException
from aliyunsdkcore.client import AcsClient
from aliyunsdkvpc.request.v20160428 import (
    ActiveFlowLogRequest,
    CreateFlowLogRequest,
    DeactiveFlowLogRequest,
    DeleteFlowLogRequest,
    DescribeFlowLogsRequest,
    ListTagResourcesRequest,
    ModifyFlowLogAttributeRequest,
    MoveResourceGroupRequest,
    TagResourcesRequest,
    UnTagResourcesRequest,
)

from service import REGION, Agent, Service


class Actions(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # Nobody is waited for: the agent has reported, and is away a second later.
        cls.service = Service("agent-away-seconds = 1\n")
        cls.agent = Agent(cls.service)
        cls.client = AcsClient(cls.service.key["id"], cls.service.key["secret"], REGION, auto_retry=False)

    @classmethod
    def tearDownClass(cls):
        cls.agent.close()
        cls.service.close()

    def call(self, module, client=None, method="POST", **given):
        request = getattr(module, module.__name__.rsplit(".", 1)[1])()
        request.set_endpoint(self.service.endpoint)
        request.set_protocol_type("http")
        request.set_method(method)
        for name, value in given.items():
            getattr(request, f"set_{name}")(value)
        return json.loads((client or self.client).do_action_with_exception(request))

    def refused(self, code, status, *arguments, **given):
        with self.assertRaises(ServerException) as caught:
            self.call(*arguments, **given)
        self.assertEqual((caught.exception.get_error_code(), caught.exception.get_http_status()), (code, status))
        self.assertTrue(caught.exception.get_request_id())

    def until(self, id, status):
        deadline = time.monotonic() + 60
        while self.describe(id)["Status"] != status:
            self.assertLess(time.monotonic(), deadline, f"{id} is not {status}")

    def describe(self, id, method="POST"):
        answer = self.call(DescribeFlowLogsRequest, FlowLogId=id, method=method)
        found = answer["FlowLogs"]["FlowLog"]
        return found[0] if found else {"Status": "gone"}

    def create(self, **more):
        given = dict(ResourceType="VPC", ResourceId="vpc-1", TrafficType="All", FlowLogName="n 流+~", Description="d/é")
        given.update(more)
        return self.call(CreateFlowLogRequest, **given)

    def test_a_flow_log_lives(self):
        created = self.create(ProjectName="project-1", LogStoreName="store_1")
        self.assertEqual(created["Success"], "true")
        id = created["FlowLogId"]
        self.until(id, "Active")
        log = self.describe(id, method="GET")
        found = [log[name] for name in ("FlowLogName", "Description", "ProjectName", "LogStoreName", "RegionId")]
        self.assertEqual(found, ["n 流+~", "d/é", "project-1", "store_1", REGION])
        self.call(ModifyFlowLogAttributeRequest, FlowLogId=id, FlowLogName="new")
        self.assertEqual(self.describe(id)["FlowLogName"], "new")
        self.call(DeactiveFlowLogRequest, FlowLogId=id)
        self.until(id, "Inactive")
        self.refused("IncorrectStatus.flowlog", 409, DeactiveFlowLogRequest, FlowLogId=id)
        self.call(ActiveFlowLogRequest, FlowLogId=id)
        self.until(id, "Active")
        resource = dict(ResourceType="FLOWLOG", ResourceIds=[id])
        self.call(TagResourcesRequest, Tags=[{"Key": "k", "Value": "v"}], **resource)
        listed = self.call(ListTagResourcesRequest, **resource)["TagResources"]["TagResource"]
        self.assertEqual([(tag["TagKey"], tag["TagValue"]) for tag in listed], [("k", "v")])
        self.call(UnTagResourcesRequest, TagKeys=["k"], **resource)
        self.assertEqual(self.describe(id)["Tags"]["Tag"], [])
        self.call(MoveResourceGroupRequest, ResourceType="FLOWLOG", ResourceId=id, NewResourceGroupId="rg-2")
        self.assertEqual(self.describe(id)["ResourceGroupId"], "rg-2")
        self.call(DeleteFlowLogRequest, FlowLogId=id)
        self.until(id, "gone")

    def test_what_is_refused(self):
        self.refused("InvalidFlowLogId.NotFound", 404, DeleteFlowLogRequest, FlowLogId="fl-none")
        self.refused("InvalidParameter.FlowLogName", 400, CreateFlowLogRequest, ResourceType="VPC", ResourceId="vpc-1",
                     TrafficType="All", FlowLogName="https://x")
        self.refused("MissingParameter.ResourceId", 400, CreateFlowLogRequest, ResourceType="VPC", TrafficType="All")
        key = self.service.key
        wrong = AcsClient(key["id"], "wrong", REGION, auto_retry=False)
        # This SDK's word for a SignatureDoesNotMatch whose text to sign is its own.
        self.refused("InvalidAccessKeySecret", 400, DescribeFlowLogsRequest, client=wrong)
        nobody = AcsClient("nobody", key["secret"], REGION, auto_retry=False)
        self.refused("InvalidAccessKeyId.NotFound", 404, DescribeFlowLogsRequest, client=nobody)
        self.refused("MissingParameter.FlowLogId", 400, DeleteFlowLogRequest)
        self.refused("UnsupportedFeature.TrafficPath", 400, CreateFlowLogRequest, ResourceType="VPC", ResourceId="vpc-1",
                     TrafficType="All", TrafficPaths=["internetGateway"])
        reader = self.service.access_key("reader")
        reader = AcsClient(reader["id"], reader["secret"], REGION, auto_retry=False)
        self.refused("Forbidden.Role", 403, DeleteFlowLogRequest, client=reader, FlowLogId="fl-none")


if __name__ == "__main__":
    unittest.main()
