"""A change by the official SDK, unmodified, and what Terraform does then: asks until the flow log has arrived.

`sdk.py ENDPOINT KEY-FILE create VPC NAME [TRAFFIC-TYPE]`, or with `activate`, `deactivate` or `delete` and an id. Prints the id.
"""
import json
import sys
import time

from alibabacloud_tea_openapi.models import Config
from alibabacloud_vpc20160428 import models
from alibabacloud_vpc20160428.client import Client

REGION = "local"
PATIENCE_SECONDS = 60


def until(client, id, wanted):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        request = models.DescribeFlowLogsRequest(region_id=REGION, flow_log_id=id)
        found = client.describe_flow_logs(request).body.flow_logs.flow_log
        status = found[0].status if found else "gone"
        if status == wanted:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"{id} is {status}, not {wanted}")
        time.sleep(0.1)


def main(endpoint, key_file, action, subject, name="", traffic_type="All"):
    with open(key_file) as file:
        key = json.load(file)
    config = Config(
        access_key_id=key["id"],
        access_key_secret=key["secret"],
        endpoint=endpoint,
        protocol="http",
        region_id=REGION,
    )
    client = Client(config)
    given = {"region_id": REGION, "flow_log_id": subject}
    if action == "create":
        request = models.CreateFlowLogRequest(
            region_id=REGION,
            resource_type="VPC",
            resource_id=subject,
            traffic_type=traffic_type,
            flow_log_name=name,
            project_name="p-one",
            log_store_name="s-one",
            aggregation_interval=1,
        )
        subject = client.create_flow_log(request).body.flow_log_id
        until(client, subject, "Active")
    elif action == "activate":
        client.active_flow_log(models.ActiveFlowLogRequest(**given))
        until(client, subject, "Active")
    elif action == "deactivate":
        client.deactive_flow_log(models.DeactiveFlowLogRequest(**given))
        until(client, subject, "Inactive")
    else:
        client.delete_flow_log(models.DeleteFlowLogRequest(**given))
        until(client, subject, "gone")
    print(subject)


main(*sys.argv[1:])
