"""The types of resources that the local cloud knows, and how their names, references and ARNs are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

FUNCTION: Final = "AWS::Serverless::Function"
STATE_MACHINE: Final = "AWS::Serverless::StateMachine"


@dataclass(frozen=True, slots=True)
class Kind:
    """How resources of a type are named: `name_property`, ARN template, what ``Ref`` gives, further attributes.

    `arn` and `attributes` are formats over name, region, account.
    """

    name_property: str | None
    arn: str
    ref: str = "{name}"
    attributes: Mapping[str, str] = field(default_factory=dict)
    runs: bool = False
    lower_case: bool = False


def _arn(service: str, rest: str) -> str:
    return f"arn:aws:{service}:{{region}}:{{account}}:{rest}"


_STATE_MACHINE_KIND = Kind("Name", _arn("states", "stateMachine:{name}"), "{arn}", {"Name": "{name}"}, runs=True)
KINDS: Final[Mapping[str, Kind]] = {
    # Run here.
    "AWS::Serverless::Function": Kind("FunctionName", _arn("lambda", "function:{name}"), runs=True),
    "AWS::Serverless::StateMachine": _STATE_MACHINE_KIND,
    "AWS::Serverless::LayerVersion": Kind("LayerName", _arn("lambda", "layer:{name}:1"), "{arn}", runs=True),
    "AWS::S3::Bucket": Kind(
        "BucketName",
        "arn:aws:s3:::{name}",
        attributes={
            "DomainName": "{name}.s3.amazonaws.com",
            "RegionalDomainName": "{name}.s3.{region}.amazonaws.com",
        },
        runs=True,
        lower_case=True,
    ),
    "AWS::SQS::Queue": Kind(
        "QueueName",
        _arn("sqs", "{name}"),
        "https://sqs.{region}.amazonaws.com/{account}/{name}",
        {"QueueName": "{name}", "QueueUrl": "https://sqs.{region}.amazonaws.com/{account}/{name}"},
        runs=True,
    ),
    "AWS::Events::Rule": Kind("Name", _arn("events", "rule/{name}"), runs=True),
    "AWS::ECS::Cluster": Kind("ClusterName", _arn("ecs", "cluster/{name}"), runs=True),
    "AWS::ECS::TaskDefinition": Kind(
        "Family",
        _arn("ecs", "task-definition/{name}:1"),
        "{arn}",
        {"TaskDefinitionArn": _arn("ecs", "task-definition/{name}:1")},
        runs=True,
    ),
    "AWS::Batch::JobQueue": Kind(
        "JobQueueName",
        _arn("batch", "job-queue/{name}"),
        "{arn}",
        {"JobQueueArn": _arn("batch", "job-queue/{name}")},
        runs=True,
    ),
    "AWS::Batch::JobDefinition": Kind(
        "JobDefinitionName", _arn("batch", "job-definition/{name}:1"), "{arn}", runs=True
    ),
    "AWS::ApiGatewayV2::Api": Kind(
        None,
        _arn("apigateway", "/apis/{name}"),
        attributes={"ApiId": "{name}", "ApiEndpoint": "https://{name}.execute-api.{region}.amazonaws.com"},
        runs=True,
        lower_case=True,
    ),
    "AWS::ApiGatewayV2::Stage": Kind(None, _arn("apigateway", "{name}"), runs=True),
    "AWS::ApiGatewayV2::Integration": Kind(None, _arn("apigateway", "{name}"), runs=True),
    "AWS::ApiGatewayV2::Route": Kind(None, _arn("apigateway", "{name}"), runs=True),
    "AWS::ApiGatewayV2::Authorizer": Kind(None, _arn("apigateway", "{name}"), runs=True),
    "AWS::Lambda::EventSourceMapping": Kind(None, _arn("lambda", "event-source-mapping:{name}"), runs=True),
    "AWS::Lambda::Permission": Kind(None, _arn("lambda", "{name}"), runs=True),
    # Without effect on how a job runs here.
    "AWS::S3::BucketPolicy": Kind(None, "arn:aws:s3:::{name}"),
    "AWS::SQS::QueuePolicy": Kind(None, _arn("sqs", "{name}")),
    "AWS::SNS::TopicPolicy": Kind(None, _arn("sns", "{name}")),
    "AWS::SNS::Topic": Kind("TopicName", _arn("sns", "{name}"), "{arn}", {"TopicName": "{name}", "TopicArn": "{arn}"}),
    "AWS::SNS::Subscription": Kind(None, _arn("sns", "{name}")),
    "AWS::Logs::LogGroup": Kind("LogGroupName", _arn("logs", "log-group:{name}:*")),
    "AWS::Logs::MetricFilter": Kind(None, _arn("logs", "{name}")),
    "AWS::Logs::ResourcePolicy": Kind(None, _arn("logs", "{name}")),
    "AWS::Logs::QueryDefinition": Kind(None, _arn("logs", "{name}")),
    "AWS::CloudWatch::Alarm": Kind("AlarmName", _arn("cloudwatch", "alarm:{name}")),
    "AWS::CloudWatch::CompositeAlarm": Kind("AlarmName", _arn("cloudwatch", "alarm:{name}")),
    "AWS::CloudWatch::Dashboard": Kind("DashboardName", "arn:aws:cloudwatch::{account}:dashboard/{name}"),
    "AWS::IAM::Role": Kind("RoleName", "arn:aws:iam::{account}:role/{name}"),
    "AWS::IAM::Policy": Kind("PolicyName", "arn:aws:iam::{account}:policy/{name}"),
    "AWS::IAM::ManagedPolicy": Kind("ManagedPolicyName", "arn:aws:iam::{account}:policy/{name}", "{arn}"),
    "AWS::IAM::InstanceProfile": Kind("InstanceProfileName", "arn:aws:iam::{account}:instance-profile/{name}"),
    "AWS::KMS::Key": Kind(None, _arn("kms", "key/{name}"), attributes={"KeyId": "{name}"}),
    "AWS::KMS::Alias": Kind("AliasName", _arn("kms", "{name}")),
    "AWS::Batch::ComputeEnvironment": Kind(
        "ComputeEnvironmentName", _arn("batch", "compute-environment/{name}"), "{arn}"
    ),
    "AWS::ECS::CapacityProvider": Kind("Name", _arn("ecs", "capacity-provider/{name}")),
    "AWS::ECS::ClusterCapacityProviderAssociations": Kind(None, _arn("ecs", "{name}")),
    "AWS::AutoScaling::AutoScalingGroup": Kind("AutoScalingGroupName", _arn("autoscaling", "autoScalingGroup:{name}")),
    "AWS::EC2::LaunchTemplate": Kind(
        "LaunchTemplateName",
        _arn("ec2", "launch-template/{name}"),
        attributes={"LatestVersionNumber": "1", "DefaultVersionNumber": "1", "LaunchTemplateId": "lt-{name}"},
    ),
    "AWS::EC2::SecurityGroup": Kind(None, _arn("ec2", "security-group/{name}"), attributes={"GroupId": "{name}"}),
    "AWS::EC2::VPC": Kind(None, _arn("ec2", "vpc/{name}"), attributes={"VpcId": "{name}", "CidrBlock": "10.0.0.0/16"}),
    "AWS::EC2::Subnet": Kind(None, _arn("ec2", "subnet/{name}"), attributes={"SubnetId": "{name}"}),
    "AWS::EC2::InternetGateway": Kind(None, _arn("ec2", "igw/{name}"), attributes={"InternetGatewayId": "{name}"}),
    "AWS::EC2::VPCGatewayAttachment": Kind(None, _arn("ec2", "{name}")),
    "AWS::EC2::RouteTable": Kind(None, _arn("ec2", "rtb/{name}"), attributes={"RouteTableId": "{name}"}),
    "AWS::EC2::Route": Kind(None, _arn("ec2", "{name}")),
    "AWS::EC2::SubnetRouteTableAssociation": Kind(None, _arn("ec2", "{name}")),
    "AWS::EC2::VPCEndpoint": Kind(None, _arn("ec2", "vpce/{name}")),
    "AWS::ECR::Repository": Kind(
        "RepositoryName",
        _arn("ecr", "repository/{name}"),
        attributes={"RepositoryUri": "{account}.dkr.ecr.{region}.amazonaws.com/{name}"},
        lower_case=True,
    ),
}
