"""What Terraform's resource alicloud_vpc_flow_log does: create, poll, read, update, disable, delete, poll until the list is empty."""
import time
import unittest

from alibabacloud_vpc20160428 import models

from newer import client
from service import REGION, Agent, Service

# The codes after which Terraform tries again, of creating, switching and deleting.
AGAIN = {
    "TaskConflict", "LastTokenProcessing", "OperationFailed.LastTokenProcessing", "IncorrectStatus", "IncorrectStatus.flowlog",
    "InvalidStatus", "OperationConflict", "ServiceUnavailable", "SystemBusy", "UnknownError", "Throttling", "Throttling.User",
}
TIMEOUT_SECONDS = 60


class Resource:
    """The resource as Terraform keeps it: what it reads is found by paging, and by the id alone."""

    def __init__(self, sdk):
        self._sdk = sdk
        self.id = None

    def retry(self, call):
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while True:
            try:
                return call()
            except Exception as error:
                if getattr(error, "code", None) not in AGAIN or time.monotonic() > deadline:
                    raise

    def read(self):
        """Pages by 50 until a short page."""
        page = 1
        while True:
            request = models.DescribeFlowLogsRequest(region_id=REGION, page_size=50, page_number=page)
            found = self._sdk.describe_flow_logs(request).body.flow_logs.flow_log
            for log in found:
                if log.flow_log_id == self.id:
                    return log
            if len(found) < 50:
                return None
            page += 1

    def wait(self, *targets):
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while True:
            log = self.read()
            status = log.status if log else ""
            if status in targets or (not targets and log is None):
                return log
            assert time.monotonic() < deadline, f"{self.id} is {status}, not {targets}"

    def create(self, **given):
        request = models.CreateFlowLogRequest(
            region_id=REGION, resource_type="VPC", resource_id="vpc-1", traffic_type="All", project_name="project-1",
            log_store_name="store-1", traffic_path=["all"], **given,
        )
        self.id = self.retry(lambda: self._sdk.create_flow_log(request)).body.flow_log_id
        return self.wait("Active")

    def modify(self, **given):
        request = models.ModifyFlowLogAttributeRequest(region_id=REGION, flow_log_id=self.id, **given)
        self.retry(lambda: self._sdk.modify_flow_log_attribute(request))
        return self.wait("Active", "Inactive")

    def switch(self, target):
        call, request = {
            "Active": (self._sdk.active_flow_log, models.ActiveFlowLogRequest),
            "Inactive": (self._sdk.deactive_flow_log, models.DeactiveFlowLogRequest),
        }[target]
        self.retry(lambda: call(request(region_id=REGION, flow_log_id=self.id)))
        return self.wait(target)

    def tag(self, tags, remove=()):
        resource = dict(region_id=REGION, resource_type="FLOWLOG", resource_id=[self.id])
        if remove:
            self._sdk.un_tag_resources(models.UnTagResourcesRequest(tag_key=list(remove), **resource))
        tags = [models.TagResourcesRequestTag(key=key, value=value) for key, value in tags.items()]
        self._sdk.tag_resources(models.TagResourcesRequest(tag=tags, **resource))

    def delete(self):
        request = models.DeleteFlowLogRequest(region_id=REGION, flow_log_id=self.id)
        self.retry(lambda: self._sdk.delete_flow_log(request))
        return self.wait()


class Terraform(unittest.TestCase):
    def setUp(self):
        self.service = Service(
            "flow-logs-per-region = 200\nrequests-per-second = 100000\nrequests-at-once = 100000\n"
        )
        self.addCleanup(self.service.close)
        self.agent = Agent(self.service)
        self.addCleanup(self.agent.close)
        self.sdk = client(self.service)

    def test_apply_change_and_destroy(self):
        resource = Resource(self.sdk)
        log = resource.create(flow_log_name="tf-example", description="tf-example", aggregation_interval=1)
        self.assertEqual((log.flow_log_name, log.aggregation_interval), ("tf-example", 1))
        self.assertEqual(log.traffic_path.traffic_path_list, ["all"])
        log = resource.modify(flow_log_name="changed", description="changed", aggregation_interval=10)
        self.assertEqual((log.flow_log_name, log.description, log.aggregation_interval), ("changed", "changed", 10))
        self.assertEqual(resource.switch("Inactive").status, "Inactive")
        self.assertEqual(resource.modify(ip_version="IPv4").ip_version, "IPv4")
        self.assertEqual(resource.switch("Active").status, "Active")
        resource.tag({"Created": "TF", "For": "acceptance"})
        resource.tag({"Created": "TF-update"}, remove=["For"])
        self.assertEqual([(tag.key, tag.value) for tag in resource.read().tags.tag], [("Created", "TF-update")])
        move = models.MoveResourceGroupRequest(
            region_id=REGION, resource_type="FLOWLOG", resource_id=resource.id, new_resource_group_id="rg-2"
        )
        self.sdk.move_resource_group(move)
        self.assertEqual(resource.read().resource_group_id, "rg-2")
        self.assertIsNone(resource.delete())

    def test_more_than_two_pages(self):
        resources = [Resource(self.sdk) for _ in range(101)]
        for number, resource in enumerate(resources):
            request = models.CreateFlowLogRequest(
                region_id=REGION, resource_type="VPC", resource_id="vpc-1", traffic_type="All", flow_log_name=f"n{number}"
            )
            resource.id = self.sdk.create_flow_log(request).body.flow_log_id
        self.assertEqual([resource.wait("Active").flow_log_name for resource in resources[:2]], ["n0", "n1"])
        for resource in resources:
            resource.wait("Active")
        for resource in resources[::-1][:2]:
            resource.delete()


if __name__ == "__main__":
    unittest.main()
